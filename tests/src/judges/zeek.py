"""Reads a conn.log, TSV or JSON, and prints its typed records, one JSON object a line. A line that cannot be read is an
error."""

import json
import sys

from parsezeeklogs import ZeekLog


def fail(number, line, error):
    sys.exit(f"line {number}: {error}\n{line}")


log = ZeekLog(sys.stdin, on_error=fail)
for record in log:
    print(json.dumps({name: value for name, value in record.items() if value is not None}))
