#!/usr/bin/env python3
"""Record how BuildKit's own parser splits Dockerfiles, as data.

Needs `pip install dockerfile==3.4.0`, which holds that parser.
Usage: record_dockerfiles.py > dockerfiles.json
"""
import json
import sys

import dockerfile

CASES = {
    "apos2": 'FROM a\nRUN echo "a" \'b\' <<EOF\nq\nEOF\nUSER x\n',
    "apostrophe": "FROM a\nRUN echo it's <<EOF\nUSER x\n",
    "arg_multi": 'ARG A=1 B="2 3" C\nFROM a\nARG D E=\'x y\'\n',
    "bom": '\ufeffFROM a\nUSER x\n',
    "comment_in_cont": 'FROM a\nRUN a \\\n# comment\n  b \\\n\n  c\nUSER x\n',
    "comment_ws": 'FROM a\n   # comment\nRUN x # not comment\n',
    "continuation_comment_end": 'FROM a\nRUN a \\\n# comment\nUSER x\n',
    "copy_hd_path": 'FROM a\nCOPY <<"a b" /d/\nx\na b\nUSER x\n',
    "copy_json": 'FROM a\nCOPY ["a b", "c", "/d/"]\nUSER x\n',
    "copy_json_bad": 'FROM a\nCOPY [a] b\nUSER x\n',
    "crlf": 'FROM a\r\nRUN a \\\r\n b\r\nCOPY <<EOF /x\r\nhi\r\nEOF\r\nUSER x\r\n',
    "double_escape": 'FROM a\nRUN a \\\\\nUSER x\n',
    "dup_directive": '# escape=`\n# escape=`\nFROM a\n',
    "env_old": 'FROM a\nENV A b c\nENV B=c D="e f" \\\n  G=h\n',
    "escape": '# escape=`\nFROM a\nRUN a `\n b\nCOPY a\\b c\\\nUSER x\n',
    "escape_after_comment": '# hi\n# escape=`\nFROM a\nRUN a `\nUSER x\n',
    "flag_space": 'FROM a\nRUN --mount=type=bind,source=a,target=/a --network=none \\\n  --mount=type=cache,target=/b echo --x\nUSER x\n',
    "flags_q": 'FROM a\nCOPY --chown="a b" --from=x a b\nUSER x\n',
    "from_noas": 'FROM a b\n',
    "from_tabs": 'FROM\ta\tAS\tb\n',
    "heredoc_after_semicolon": 'FROM a\nRUN a; cat <<EOF;b\nq\nEOF;b\nUSER x\n',
    "heredoc_chain": 'FROM a\nRUN cat <<EOF > /x && \\\n  echo done\nhi\nEOF\nUSER x\n',
    "heredoc_cmd": 'FROM a\nRUN cat <<EOF > /x\nhi\nEOF\nUSER x\n',
    "heredoc_cmd_instr": 'FROM a\nCMD cat <<EOF\nUSER x\n',
    "heredoc_dash": 'FROM a\nRUN <<-EOF\n\thi\n\tEOF\nUSER x\n',
    "heredoc_escape_word": 'FROM a\nRUN cat <<E\\OF\nhi\nEOF\nUSER x\n',
    "heredoc_fd": 'FROM a\nRUN cat 3<<EOF\nhi\nEOF\nUSER x\n',
    "heredoc_in_quotes_word": "FROM a\nRUN bash -c 'cat <<EOF\\nEOF'\nUSER x\n",
    "heredoc_in_quotes_word2": 'FROM a\nRUN bash -c "cat <<EOF"\nUSER x\n',
    "heredoc_json": 'FROM a\nRUN ["sh", "<<EOF"]\nUSER x\n',
    "heredoc_mount": 'FROM a\nRUN --mount=type=cache,target=/c <<EOF\nhi\nEOF\nUSER x\n',
    "heredoc_onbuild": 'FROM a\nONBUILD RUN <<EOF\nhi\nEOF\nUSER x\n',
    "heredoc_onbuild_copy": 'FROM a\nONBUILD COPY <<EOF /x\nhi\nEOF\nUSER x\n',
    "heredoc_quote_delim": "FROM a\nRUN python3 <<'PY'\nprint('$x')\nPY\nUSER x\n",
    "heredoc_quoted_not": 'FROM a\nRUN echo "<<EOF"\nUSER x\n',
    "heredoc_two_copy": 'FROM a\nCOPY <<A <<B /d/\nx\nA\ny\nB\nUSER x\n',
    "herestring": 'FROM a\nRUN cat <<< hello\nUSER x\n',
    "herestring2": 'FROM a\nRUN cat <<<"hello"\nUSER x\n',
    "lower": 'from a as B\nrun x\n',
    "nbsp": 'FROM a\nRUN x\xa0y \\\n\xa0z\n',
    "onbuild": 'FROM a\nONBUILD COPY . /x\nONBUILD RUN x \\\n y\n',
    "shift": 'FROM a\nRUN echo $((1<<2))\nUSER x\n',
    "split_kw": 'FR\\\nOM a\nUSER x\n',
    "syntax_then_escape": '# syntax=docker/dockerfile:1\n# escape=`\nFROM a\nRUN a `\n b\n',
    "trailing_escape": 'FROM a\nRUN a \\',
    "unterminated": 'FROM a\nRUN <<EOF\nhi\n',
    "ws_before": '  FROM a\n\t RUN x\n',
}


def record(name, text):
    try:
        commands = dockerfile.parse_string(text)
    except dockerfile.GoParseError:
        return {"name": name, "text": text, "instructions": None}
    instructions = [
        {
            "keyword": command.cmd.upper(),
            "start": command.start_line,
            "end": command.end_line,
            "flags": list(command.flags),
            "words": list(command.value),
        }
        for command in commands
    ]
    return {"name": name, "text": text, "instructions": instructions}


json.dump([record(*case) for case in CASES.items()], sys.stdout, indent=1)
sys.stdout.write("\n")
