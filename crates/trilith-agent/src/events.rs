//! Events of commands: that one was started, and each piece of its output.
//!
//! The list is in memory, the output in a spool. Only so many finished commands are
//! remembered; the oldest go first, and also when the spool is full. Events are never changed.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio::task::spawn_blocking;

use crate::command::Request;
use crate::id::Id;
use crate::spool::{Spool, SpoolFailure, Stored};
use crate::time::Timestamp;

/// How many finished commands are remembered.
const COMMANDS: usize = 2048;

/// How much of a stream of an attached command may be unread before the command has to wait, in bytes.
const WINDOW: u64 = 4 << 20;

/// Something that happened. Its number orders it among all events.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) number: u64,
    pub(crate) id: Id,
    pub(crate) timestamp: Timestamp,
    pub(crate) body: Body,
}

#[derive(Clone, Debug)]
pub(crate) enum Body {
    /// A command was started; the event's identifier is the command's.
    Command(Arc<Request>),
    Output(Output),
}

/// A piece of output, or the end of a command, or both.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    pub(crate) command: Id,
    pub(crate) order: u64,
    /// Present in the last event of a command.
    pub(crate) exit_code: Option<i32>,
    pub(crate) text: Option<Text>,
    /// What the agent adds to standard error.
    pub(crate) note: Option<String>,
}

/// Bytes of both streams, standard output first.
#[derive(Clone, Debug)]
pub(crate) struct Text {
    pub(crate) stored: Stored,
    pub(crate) stdout: usize,
    pub(crate) stderr: usize,
}

impl Output {
    /// Returns how many bytes it has of standard output and of standard error.
    fn lengths(&self) -> [u64; 2] {
        let text = self.text.as_ref();
        text.map_or([0; 2], |text| [text.stdout as u64, text.stderr as u64])
    }
}

/// How far a command is: grows with each event, and is `None` at its end.
pub(crate) type Progress = Option<u64>;

/// Which events are asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    pub(crate) outputs_only: bool,
    pub(crate) commands_only: bool,
    pub(crate) command: Option<Id>,
    pub(crate) since: Option<Timestamp>,
    pub(crate) before: Option<Timestamp>,
    pub(crate) order_above: Option<i64>,
    pub(crate) newest_first: bool,
    /// The number of the event that the page begins with.
    pub(crate) page: Option<u64>,
    pub(crate) limit: usize,
}

impl Filter {
    fn matches(&self, event: &Event) -> bool {
        let of_kind = match &event.body {
            // As with the reference, only output belongs to a command.
            Body::Command(_) => !self.outputs_only && self.command.is_none(),
            Body::Output(output) => {
                let order = i64::try_from(output.order).unwrap_or(i64::MAX);
                !self.commands_only && self.order_above.is_none_or(|above| order > above)
            }
        };
        of_kind
            && self.since.is_none_or(|since| event.timestamp >= since)
            && self.before.is_none_or(|before| event.timestamp < before)
    }
}

#[derive(Debug)]
pub(crate) struct Events {
    spool: Arc<Spool>,
    list: Mutex<List>,
}

#[derive(Debug, Default)]
struct List {
    events: BTreeMap<u64, Event>,
    next: u64,
    latest: Option<Timestamp>,
    numbers: HashMap<Id, u64>,
    commands: HashMap<Id, Record>,
    finished: VecDeque<Id>,
}

/// What is known of a command.
#[derive(Debug)]
struct Record {
    /// The numbers of its outputs, without those that were forgotten.
    outputs: VecDeque<u64>,
    /// How many of the first are forgotten.
    forgotten: u64,
    /// How many bytes its outputs have.
    kept: u64,
    progress: watch::Sender<Progress>,
    /// Who reads standard output and standard error of an attached command.
    readers: Option<[Reading; 2]>,
    /// Whether the command has to wait for them.
    is_held: watch::Sender<bool>,
}

/// How far the only reader of a stream is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Reading {
    #[default]
    Awaited,
    /// It has all before the output with this order.
    At(u64),
    /// There is none any more.
    Over,
}

impl Reading {
    fn has(self, order: u64) -> bool {
        match self {
            Self::Awaited => false,
            Self::At(next) => order < next,
            Self::Over => true,
        }
    }
}

/// The only reader of a stream of an attached command: what it has read is forgotten, and all
/// that comes when it is gone.
#[derive(Debug)]
pub(crate) struct Reader {
    events: Arc<Events>,
    command: Id,
    is_stderr: bool,
}

impl Reader {
    /// Notes that all before the output with the order `next` is read.
    pub(crate) fn has_read(&self, next: u64) {
        let (command, is_stderr) = (self.command, self.is_stderr);
        self.events
            .list()
            .set_reading(command, is_stderr, Reading::At(next));
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let (command, is_stderr) = (self.command, self.is_stderr);
        self.events
            .list()
            .set_reading(command, is_stderr, Reading::Over);
    }
}

/// That a stream has had its reader.
#[derive(Debug)]
pub(crate) struct Taken;

impl Events {
    pub(crate) fn new(spool: Spool) -> Self {
        Self {
            spool: Arc::new(spool),
            list: Mutex::default(),
        }
    }

    fn list(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that a command starts and returns the event.
    pub(crate) fn start(&self, id: Id, request: Arc<Request>) -> Event {
        let mut list = self.list();
        let readers = request.attached.then(<[Reading; 2]>::default);
        let event = list.add(id, Body::Command(request));
        let record = Record {
            outputs: VecDeque::new(),
            forgotten: 0,
            kept: 0,
            progress: watch::Sender::new(Some(0)),
            readers,
            is_held: watch::Sender::new(false),
        };
        list.commands.insert(id, record);
        while list.finished.len() > COMMANDS {
            list.forget_oldest();
        }
        event
    }

    /// Records a piece of output. Output of a command that is not known is dropped.
    pub(crate) fn add_output(&self, output: Output) -> io::Result<()> {
        let id = Id::random()?;
        let mut list = self.list();
        let (command, is_last, order) = (output.command, output.exit_code.is_some(), output.order);
        let length: u64 = output.lengths().iter().sum();
        if !list.commands.contains_key(&command) {
            return Ok(());
        }
        let number = list.add(id, Body::Output(output)).number;
        if is_last {
            list.finished.push_back(command);
        }
        if let Some(record) = list.commands.get_mut(&command) {
            record.outputs.push_back(number);
            record.kept += length;
            record
                .progress
                .send_replace((!is_last).then_some(order + 1));
        }
        list.forget_read(command);
        Ok(())
    }

    /// Returns how many bytes of output of `command` there are.
    pub(crate) fn kept(&self, command: Id) -> u64 {
        let list = self.list();
        list.commands.get(&command).map_or(0, |record| record.kept)
    }

    /// Returns whether `command` has to wait for those that read it, now and later.
    pub(crate) fn is_held(&self, command: Id) -> Option<watch::Receiver<bool>> {
        let list = self.list();
        let record = list.commands.get(&command);
        record.map(|record| record.is_held.subscribe())
    }

    /// Returns whether `command` is read while it runs.
    pub(crate) fn is_attached(&self, command: Id) -> bool {
        let list = self.list();
        let record = list.commands.get(&command);
        record.is_some_and(|record| record.readers.is_some())
    }

    /// Begins to read a stream of `command`; `None` unless that is attached.
    pub(crate) fn read(
        self: &Arc<Self>,
        command: Id,
        is_stderr: bool,
    ) -> Result<Option<Reader>, Taken> {
        let mut list = self.list();
        let record = list.commands.get_mut(&command);
        let Some(readers) = record.and_then(|record| record.readers.as_mut()) else {
            return Ok(None);
        };
        let reading = &mut readers[usize::from(is_stderr)];
        if *reading != Reading::Awaited {
            return Err(Taken);
        }
        *reading = Reading::At(0);
        Ok(Some(Reader {
            events: Arc::clone(self),
            command,
            is_stderr,
        }))
    }

    /// Waits no more for those who do not read `command` yet.
    pub(crate) fn give_readers_up(&self, command: Id) {
        let mut list = self.list();
        let record = list.commands.get_mut(&command);
        for reading in record
            .and_then(|record| record.readers.as_mut())
            .into_iter()
            .flatten()
        {
            if *reading == Reading::Awaited {
                *reading = Reading::Over;
            }
        }
        list.forget_read(command);
    }

    /// Keeps bytes; when there is no room, at the cost of the oldest finished commands.
    pub(crate) async fn keep(self: &Arc<Self>, bytes: Vec<u8>) -> Result<Stored, SpoolFailure> {
        let events = Arc::clone(self);
        let write = move || {
            loop {
                match events.spool.write(&bytes) {
                    Err(SpoolFailure::Full) if events.list().forget_oldest() => {}
                    result => return result,
                }
            }
        };
        let written = spawn_blocking(write).await;
        written.unwrap_or_else(|error| Err(SpoolFailure::Io(io::Error::other(error))))
    }

    /// Returns a page of events, and the number that the next page begins with.
    pub(crate) fn search(&self, filter: &Filter) -> (Vec<Event>, Option<u64>) {
        let list = self.list();
        if let Some(command) = filter.command {
            let Some(record) = list.commands.get(&command) else {
                return (Vec::new(), None);
            };
            let numbers = &record.outputs;
            let numbers = match (filter.page, filter.newest_first) {
                (None, _) => numbers.range(..),
                (Some(page), false) => numbers.range(numbers.partition_point(|n| *n < page)..),
                (Some(page), true) => numbers.range(..numbers.partition_point(|n| *n <= page)),
            };
            let events = numbers.filter_map(|number| list.events.get(number));
            return page(events, filter);
        }
        let range = match (filter.page, filter.newest_first) {
            (None, _) => (Bound::Unbounded, Bound::Unbounded),
            (Some(page), false) => (Bound::Included(page), Bound::Unbounded),
            (Some(page), true) => (Bound::Unbounded, Bound::Included(page)),
        };
        page(list.events.range(range).map(|(_, event)| event), filter)
    }

    /// Returns the event `id`.
    pub(crate) fn get(&self, id: Id) -> Option<Event> {
        let list = self.list();
        let number = list.numbers.get(&id)?;
        list.events.get(number).cloned()
    }

    /// Returns the outputs of `command` that follow the first `skip`; `None` if it is unknown.
    pub(crate) fn outputs(&self, command: Id, skip: u64) -> Option<Vec<Event>> {
        let list = self.list();
        let record = list.commands.get(&command)?;
        let skip = usize::try_from(skip.saturating_sub(record.forgotten)).unwrap_or(usize::MAX);
        let numbers = record.outputs.iter().skip(skip);
        Some(
            numbers
                .filter_map(|number| list.events.get(number).cloned())
                .collect(),
        )
    }

    /// Returns how far `command` is, now and later.
    pub(crate) fn progress(&self, command: Id) -> Option<watch::Receiver<Progress>> {
        let list = self.list();
        list.commands
            .get(&command)
            .map(|record| record.progress.subscribe())
    }

    /// Forgets all finished commands and returns how many events that were.
    pub(crate) fn clear(&self) -> usize {
        let mut list = self.list();
        let before = list.events.len();
        while list.forget_oldest() {}
        before - list.events.len()
    }
}

/// Waits for the end of a command.
pub(crate) async fn finished(mut progress: watch::Receiver<Progress>) {
    // A command that is forgotten has ended.
    let _ = progress.wait_for(Option::is_none).await;
}

impl List {
    fn add(&mut self, id: Id, body: Body) -> Event {
        // The clock may stand still or go back; the order of events may not.
        let now = Timestamp::now();
        let timestamp = self.latest.map_or(now, |latest| now.after(latest));
        self.latest = Some(timestamp);
        let event = Event {
            number: self.next,
            id,
            timestamp,
            body,
        };
        self.next += 1;
        self.numbers.insert(id, event.number);
        self.events.insert(event.number, event.clone());
        event
    }

    fn set_reading(&mut self, command: Id, is_stderr: bool, reading: Reading) {
        let record = self.commands.get_mut(&command);
        if let Some(readers) = record.and_then(|record| record.readers.as_mut()) {
            readers[usize::from(is_stderr)] = reading;
            self.forget_read(command);
        }
    }

    /// Forgets what has been read of an attached command, and says whether it has to wait. Its end is kept.
    fn forget_read(&mut self, command: Id) {
        let Some(record) = self.commands.get_mut(&command) else {
            return;
        };
        let Some(readers) = record.readers else {
            return;
        };
        let output = |events: &BTreeMap<u64, Event>, number: &u64| match &events.get(number)?.body {
            Body::Output(output) => Some((output.order, output.lengths(), output.exit_code)),
            Body::Command(_) => None,
        };
        while let Some(number) = record.outputs.front()
            && let Some((order, lengths, None)) = output(&self.events, number)
            && (0..2).all(|stream| lengths[stream] == 0 || readers[stream].has(order))
        {
            if let Some(event) = self.events.remove(number) {
                self.numbers.remove(&event.id);
            }
            record.outputs.pop_front();
            record.forgotten += 1;
            record.kept -= lengths.iter().sum::<u64>();
        }
        let mut unread = [0; 2];
        for number in &record.outputs {
            let (order, lengths, _) = output(&self.events, number).unwrap_or_default();
            for stream in 0..2 {
                if !readers[stream].has(order) {
                    unread[stream] += lengths[stream];
                }
            }
        }
        let is_held = unread.iter().any(|unread| *unread > WINDOW);
        record
            .is_held
            .send_if_modified(|held| std::mem::replace(held, is_held) != is_held);
    }

    /// Forgets the command that finished first; false when there is none.
    fn forget_oldest(&mut self) -> bool {
        let Some(command) = self.finished.pop_front() else {
            return false;
        };
        let record = self.commands.remove(&command);
        let outputs = record.map(|record| record.outputs).unwrap_or_default();
        for number in self.numbers.remove(&command).into_iter().chain(outputs) {
            if let Some(event) = self.events.remove(&number) {
                self.numbers.remove(&event.id);
            }
        }
        true
    }
}

/// Takes the page that `filter` asks for from events that are in ascending order.
fn page<'a>(
    events: impl DoubleEndedIterator<Item = &'a Event>,
    filter: &Filter,
) -> (Vec<Event>, Option<u64>) {
    let mut taken = Vec::new();
    let mut take = |event: &Event| {
        if !filter.matches(event) {
            return None;
        }
        if taken.len() == filter.limit {
            return Some(event.number);
        }
        taken.push(event.clone());
        None
    };
    let mut events = events;
    let next = if filter.newest_first {
        events.rev().find_map(&mut take)
    } else {
        events.find_map(&mut take)
    };
    (taken, next)
}
