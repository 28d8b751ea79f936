//! The report of a batch: one page of HTML that needs nothing else, no script and no network.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use trilith_core::Level;

use super::journal::{BatchStatus, ImageLine, JournalLine, PhaseSeconds, RunRecord};

/// How many of the slowest images are listed.
const SLOWEST: usize = 20;
/// Width of the timeline.
const WIDTH: f64 = 1000.0;
/// Height of a lane of the timeline.
const LANE: usize = 12;

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1c2024;--soft:#60646c;--line:#d9dbe0;--card:#f7f7f9;\
--built:#2f7de1;--reused:#2f9e63;--failed:#d1453b;--ask:#a7b0bd}\
@media(prefers-color-scheme:dark){:root{--ink:#eceef1;--soft:#a0a6b0;--line:#3a3f47;--card:#1d2025}}\
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);max-width:1080px;margin:2rem auto;padding:0 1rem}\
h1{font-size:1.5rem;margin:0}h2{font-size:1.1rem;margin:2.2rem 0 .6rem}p{color:var(--soft);margin:.2rem 0}\
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(130px,1fr));gap:.7rem;margin:1.2rem 0}\
.cards div{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:.6rem .8rem}\
.cards b{display:block;font-size:1.4rem}.cards span{color:var(--soft);font-size:.85rem}\
.bar{display:flex;height:14px;border-radius:7px;overflow:hidden;background:var(--line)}\
.built{background:var(--built);fill:var(--built)}.reused{background:var(--reused);fill:var(--reused)}\
.failed{background:var(--failed);fill:var(--failed)}.ask{background:var(--ask);fill:var(--ask)}\
table{border-collapse:collapse;width:100%;font-size:.9rem}th,td{text-align:left;padding:.25rem .6rem .25rem 0;\
border-bottom:1px solid var(--line);vertical-align:top;overflow-wrap:anywhere}\
th{color:var(--soft);font-weight:500;white-space:nowrap}.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}\
svg{width:100%;height:auto;background:var(--card);border:1px solid var(--line);border-radius:8px}\
svg text{fill:var(--soft);font:11px system-ui,sans-serif}.key i{display:inline-block;width:.8em;height:.8em;\
border-radius:2px;margin:0 .35em 0 1em}summary{cursor:pointer;color:var(--soft)}code{font-size:.85em}";

/// Text with what HTML would take for markup escaped.
struct Text<'a>(&'a str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

/// Returns a page about the last run of a journal; `None` where it holds none.
#[must_use]
pub fn report_html(lines: &[JournalLine]) -> Option<String> {
    let run = lines.iter().rev().find_map(|line| match line {
        JournalLine::Run(run) => Some(run),
        JournalLine::Image(_) => None,
    })?;
    // An image that was tried again in a later process of the run counts as it ended.
    let mut last: BTreeMap<(usize, &str), &ImageLine> = BTreeMap::new();
    for line in lines {
        if let JournalLine::Image(line) = line
            && line.run == run.run
        {
            last.insert((line.line, &line.variant), line);
        }
    }
    let images: Vec<&ImageLine> = last.into_values().collect();
    let mut page = String::new();
    // Writing to a string cannot fail.
    let _infallible = write_page(&mut page, run, &images);
    Some(page)
}

fn write_page(page: &mut String, run: &RunRecord, images: &[&ImageLine]) -> fmt::Result {
    let count = |status| images.iter().filter(|image| image.status == status).count();
    let (built, reused, failed) = (
        count(BatchStatus::Built),
        count(BatchStatus::Reused),
        count(BatchStatus::Failed),
    );
    let seconds = images.iter().map(|image| end(image)).fold(0.0, f64::max);
    let bytes: u64 = images.iter().map(|image| image.uploaded_bytes).sum();
    writeln!(
        page,
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <title>Batch {run}</title><style>{STYLE}</style>\
         <h1>Batch of {total} images</h1><p>run <code>{run}</code>, trilith {version}</p>",
        run = Text(&run.run),
        total = run.images,
        version = Text(&run.trilith),
    )?;
    let done = f64::from(u32::try_from(images.len()).unwrap_or(u32::MAX));
    let cards = [
        ("built", built.to_string()),
        ("reused", reused.to_string()),
        ("failed", failed.to_string()),
        (
            "not done",
            run.images.saturating_sub(images.len()).to_string(),
        ),
        ("seconds", format!("{seconds:.1}")),
        ("images/s", format!("{:.1}", done / seconds.max(0.001))),
        (
            "MB sent",
            format!("{}.{}", bytes / 1_000_000, bytes / 100_000 % 10),
        ),
    ];
    page.push_str("<div class=\"cards\">");
    for (name, value) in cards {
        write!(page, "<div><b>{value}</b><span>{name}</span></div>")?;
    }
    page.push_str("</div><div class=\"bar\">");
    for (class, count) in [("built", built), ("reused", reused), ("failed", failed)] {
        write!(page, "<div class=\"{class}\" style=\"flex:{count}\"></div>")?;
    }
    page.push_str("</div>");
    write_failures(page, images)?;
    write_levels(page, images)?;
    write_timeline(page, images, seconds)?;
    write_slowest(page, images)?;
    page.push_str("<h2>All images</h2><details><summary>Show</summary>");
    write_table(page, images)?;
    page.push_str("</details></html>\n");
    Ok(())
}

/// Returns how long the last attempt at `image` took.
fn took(image: &ImageLine) -> f64 {
    let PhaseSeconds {
        resolve,
        plan,
        build,
        publish,
    } = image.seconds;
    // What is built was asked about in an attempt before.
    if image.status == BatchStatus::Built {
        build + publish
    } else {
        resolve + plan + build + publish
    }
}

fn end(image: &ImageLine) -> f64 {
    image.at + took(image)
}

fn class(image: &ImageLine) -> &'static str {
    match image.status {
        BatchStatus::Built => "built",
        BatchStatus::Reused => "reused",
        BatchStatus::Failed => "failed",
    }
}

fn write_failures(page: &mut String, images: &[&ImageLine]) -> fmt::Result {
    let mut causes: BTreeMap<String, Vec<&ImageLine>> = BTreeMap::new();
    for image in images {
        if let Some(cause) = image.cause() {
            causes.entry(cause).or_default().push(image);
        }
    }
    if causes.is_empty() {
        return Ok(());
    }
    let mut causes: Vec<_> = causes.into_iter().collect();
    causes.sort_by_key(|(_, images)| std::cmp::Reverse(images.len()));
    page.push_str(
        "<h2>Failures by cause</h2><table><tr><th class=\"n\" style=\"width:4em\">images<th>cause",
    );
    for (cause, images) in causes {
        write!(
            page,
            "<tr><td class=\"n\">{}<td>{}<details><summary>bases</summary>",
            images.len(),
            Text(&cause)
        )?;
        for image in images {
            write!(page, "{}", Text(&image.base))?;
            if let Some(log) = &image.log {
                write!(page, " <code>{}</code>", Text(&log.to_string_lossy()))?;
            }
            page.push_str("<br>");
        }
        page.push_str("</details>");
    }
    page.push_str("</table>");
    Ok(())
}

fn write_levels(page: &mut String, images: &[&ImageLine]) -> fmt::Result {
    let count = |status, level| {
        let of = |image: &&&ImageLine| image.status == status && image.level == level;
        images.iter().filter(of).count()
    };
    let rows = [
        (
            "source image was there",
            "reused",
            count(BatchStatus::Reused, Some(Level::Source)),
        ),
        (
            "built on the lock image",
            "built",
            count(BatchStatus::Built, Some(Level::Lock)),
        ),
        (
            "built on the versioned image",
            "built",
            count(BatchStatus::Built, Some(Level::Versioned)),
        ),
        (
            "built on the base",
            "built",
            count(BatchStatus::Built, None),
        ),
    ];
    page.push_str("<h2>Cache hits by level</h2><table>");
    for (name, class, count) in rows {
        let rest = images.len().saturating_sub(count);
        write!(
            page,
            "<tr><td style=\"width:16em\">{name}<td class=\"n\" style=\"width:4em\">{count}\
             <td><div class=\"bar\"><div class=\"{class}\" style=\"flex:{count}\"></div>\
             <div style=\"flex:{rest}\"></div></div>"
        )?;
    }
    page.push_str("</table>");
    Ok(())
}

/// Draws each image as a bar in the first lane that is free: as many lanes as were worked on at a
/// time.
fn write_timeline(page: &mut String, images: &[&ImageLine], seconds: f64) -> fmt::Result {
    if seconds <= 0.0 {
        return Ok(());
    }
    let mut sorted: Vec<&&ImageLine> = images.iter().collect();
    sorted.sort_by(|a, b| a.at.total_cmp(&b.at));
    let mut lanes: Vec<f64> = Vec::new();
    let mut bars = String::new();
    for image in sorted {
        let lane = lanes.iter().position(|&free| free <= image.at);
        let lane = lane.unwrap_or_else(|| {
            lanes.push(0.0);
            lanes.len() - 1
        });
        lanes[lane] = end(image);
        write!(
            bars,
            "<rect class=\"{}\" x=\"{:.2}\" y=\"{}\" width=\"{:.2}\" height=\"{}\"><title>{} {:.3} s</title></rect>",
            class(image),
            image.at / seconds * WIDTH,
            lane * LANE + 1,
            (took(image) / seconds * WIDTH).max(0.4),
            LANE - 2,
            Text(&image.base),
            took(image),
        )?;
    }
    let height = lanes.len() * LANE;
    write!(
        page,
        "<h2>Timeline</h2><p class=\"key\"><i class=\"built\" style=\"margin-left:0\"></i>built\
         <i class=\"reused\"></i>reused<i class=\"failed\"></i>failed; a row for each image at a time</p>\
         <svg viewBox=\"0 0 {WIDTH} {}\">{bars}",
        height + 18
    )?;
    for quarter in 0..=4 {
        let part = f64::from(quarter) / 4.0;
        let anchor = match quarter {
            0 => "start",
            4 => "end",
            _ => "middle",
        };
        write!(
            page,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"{anchor}\">{:.1} s</text>",
            part * WIDTH,
            height + 13,
            part * seconds
        )?;
    }
    page.push_str("</svg>");
    Ok(())
}

fn write_slowest(page: &mut String, images: &[&ImageLine]) -> fmt::Result {
    let mut sorted = images.to_vec();
    sorted.sort_by(|a, b| took(b).total_cmp(&took(a)));
    sorted.truncate(SLOWEST);
    page.push_str("<h2>Slowest</h2>");
    write_table(page, &sorted)
}

fn write_table(page: &mut String, images: &[&ImageLine]) -> fmt::Result {
    page.push_str(
        "<table><tr><th>base<th>status<th class=\"n\">base digest, s<th class=\"n\">plan, s\
         <th class=\"n\">build, s<th class=\"n\">publish, s<th class=\"n\">attempts<th>image",
    );
    for image in images {
        let PhaseSeconds {
            resolve,
            plan,
            build,
            publish,
        } = image.seconds;
        write!(page, "<tr><td>{}", Text(&image.base))?;
        if !image.variant.is_empty() {
            write!(page, " <code>{}</code>", Text(&image.variant))?;
        }
        write!(
            page,
            "<td>{}<td class=\"n\">{resolve:.3}<td class=\"n\">{plan:.3}<td class=\"n\">{build:.3}\
             <td class=\"n\">{publish:.3}<td class=\"n\">{}<td>",
            class(image),
            image.attempts,
        )?;
        match (&image.reference, &image.error) {
            (Some(reference), _) => write!(page, "<code>{}</code>", Text(reference))?,
            (None, Some(error)) => write!(page, "{}", Text(&error.message))?,
            (None, None) => {}
        }
    }
    page.push_str("</table>");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::journal::BatchError;
    use super::*;

    fn run(run: &str) -> JournalLine {
        JournalLine::Run(RunRecord {
            run: run.to_owned(),
            started: 0.0,
            images: 3,
            trilith: "1".to_owned(),
        })
    }

    fn image(run: &str, line: usize, status: BatchStatus) -> ImageLine {
        ImageLine {
            run: run.to_owned(),
            base: format!("<base&{line}>"),
            line,
            variant: String::new(),
            base_digest: None,
            reference: None,
            tags: Vec::new(),
            digest: None,
            key: None,
            status,
            level: None,
            reason: String::new(),
            attempts: 1,
            at: 0.5,
            seconds: PhaseSeconds {
                build: 1.0,
                ..PhaseSeconds::default()
            },
            uploaded_bytes: 0,
            error: (status == BatchStatus::Failed).then(|| BatchError {
                kind: "denied".to_owned(),
                message: "no".to_owned(),
                causes: vec!["<script> of <base&2>".to_owned()],
            }),
            log: None,
        }
    }

    #[test]
    fn the_last_run_as_it_ended() {
        let lines = [
            run("old"),
            JournalLine::Image(Box::new(image("old", 9, BatchStatus::Built))),
            run("new"),
            JournalLine::Image(Box::new(image("new", 1, BatchStatus::Failed))),
            JournalLine::Image(Box::new(image("new", 1, BatchStatus::Built))),
            JournalLine::Image(Box::new(image("new", 2, BatchStatus::Failed))),
        ];
        let page = report_html(&lines).unwrap();
        for expected in [
            "Batch of 3 images",
            "<b>1</b><span>built</span>",
            "<b>1</b><span>failed</span>",
            "<b>1</b><span>not done</span>",
            "&lt;base&amp;1&gt;",
            "&lt;script&gt; of BASE",
        ] {
            assert!(page.contains(expected), "{expected}\n{page}");
        }
        assert!(!page.contains("<script") && !page.contains("base&amp;9"));
        assert_eq!(page.matches("<rect").count(), 2);
        assert_eq!(report_html(&[]), None);
    }
}
