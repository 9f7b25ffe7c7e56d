"""Runs the commands of commands.txt on one engine and keeps what each answered, in a form that two engines share.

The modes are explained in README.md. What differs from run to run (ids, times, ages, folders) becomes a placeholder here,
so that everything that is left can be compared literally.
"""

import http.client
import json
import re
import shlex
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field

COMMAND_SECONDS = 90
POLL_SECONDS = 0.3
MODES = {"text", "table", "json", "api", "progress", "pull", "pretty", "logs", "wait", "fetch", "count", "events", "top"}
# Applied in this order to everything that an engine says.
PLACEHOLDERS = [
    (r"SWMTKN-1-[0-9a-z]{50}-[0-9a-z]{25}", "<token>"),
    (r"SWMKEY-1-[0-9A-Za-z+/]{20,}", "<key>"),
    (r"-----BEGIN CERTIFICATE-----[\s\S]*?-----END CERTIFICATE-----", "<certificate>"),
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?( ?(Z|[+-]\d\d:?\d\d))?( UTC)?", "<time>"),
    (r"(?<!sha256:)\b[0-9a-f]{64}\b", "<id>"),
    (r"\b[0-9a-z]{25}\b", "<id>"),
    (r"\b(?=[0-9a-z]*\d)(?=\d*[a-z])[0-9a-z]{12}\b", "<id>"),
    (r"\b\d{12}\b", "<id>"),
    (r"(?i)\b(about an?|less than an?|\d+) (second|minute|hour|day|week|month|year)s?( ago)?", "<age>"),
    # which of them goes to whom is chance; networks and gateways are not
    (r"\b(10\.0\.\d+|10\.99\.0|172\.(?:1[7-9]|2\d|3[01])\.\d+)\.(?![01]\b)\d+\b", r"\1.<n>"),
    (r"\bgateway_[0-9a-f]{12}\b", "gateway_<id>"),
    (r"\b0242[0-9a-f:]+|\b02:42(:[0-9a-f]{2}){4}", "<mac>"),
]


@dataclass
class Answer:
    """What one command gave: `lines` of a text, or `leaves` of a JSON value by path."""
    exit: int | str
    lines: list = field(default_factory=list)
    leaves: dict | None = None
    errors: list = field(default_factory=list)


@dataclass
class Step:
    """One line of commands.txt."""
    mode: str
    text: str

    @property
    def name(self):
        return self.text if self.mode not in ("wait", "events", "fetch") else f"{self.mode} {self.text}"


def read_steps(path):
    """Reads the list of commands; an unknown mode is an error of the list."""
    steps = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        mode, _, text = line.partition(" ")
        if mode not in MODES:
            raise ValueError(f"{path}:{number}: there is no mode {mode!r}")
        steps.append(Step(mode, text.strip()))
    return steps


def leaves_of(value, path="", found=None):
    """The paths of a JSON value with all scalars below each; elements of a list share one path."""
    found = {} if found is None else found
    if isinstance(value, dict):
        found.setdefault(path or ".", set()).add("{}")
        for key, below in value.items():
            leaves_of(below, f"{path}.{key}", found)
    elif isinstance(value, list):
        found.setdefault(path or ".", set()).add("[]")
        for below in value:
            leaves_of(below, f"{path}[]", found)
    else:
        found.setdefault(path or ".", set()).add(json.dumps(value))
    return found


class UnixConnection(http.client.HTTPConnection):
    """HTTP over an engine's socket."""

    def __init__(self, path):
        super().__init__("localhost", timeout=COMMAND_SECONDS)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(COMMAND_SECONDS)
        self.sock.connect(self.path)


class Transcript:
    """Runs steps on one engine. `answers` has one entry per step."""

    def __init__(self, engine, report):
        self.engine = engine
        self.report = report
        self.answers = []
        self.started = int(time.time()) - 1

    def run_all(self, steps):
        for step in steps:
            begun = time.monotonic()
            try:
                answer = getattr(self, f"run_{step.mode}")(step.text)
            except subprocess.TimeoutExpired:
                answer = Answer("no end")
            except (OSError, http.client.HTTPException) as error:
                answer = Answer(f"failed: {error}")
            self.answers.append(answer)
            self.report(self.engine.name, step, answer, time.monotonic() - begun)

    def normal(self, text):
        """A text without what differs from run to run."""
        text = text.replace(str(self.engine.folder), "<folder>").replace(self.engine.cgroup, "<cgroup>")
        for pattern, placeholder in PLACEHOLDERS:
            text = re.sub(pattern, placeholder, text)
        return text

    def lines(self, text):
        return [line.rstrip() for line in self.normal(text).splitlines() if line.strip()]

    def words(self, text):
        """The arguments and the standard input of a command."""
        text = re.sub(r"@\{([^}]*)\}", lambda found: self.first_line(found.group(1)), text)
        command, _, stdin = text.partition(" <<< ")
        return shlex.split(command), stdin + "\n" if stdin else None

    def first_line(self, command):
        output = self.engine.docker(shlex.split(command), timeout=COMMAND_SECONDS).stdout.split()
        return output[0] if output else "nothing-found"

    def docker(self, text):
        arguments, stdin = self.words(text)
        return self.engine.docker(arguments, stdin, COMMAND_SECONDS)

    def run_text(self, text):
        result = self.docker(text)
        return Answer(result.returncode, self.lines(result.stdout), None, self.lines(result.stderr))

    def run_table(self, text):
        """Columns may have any width and rows any order."""
        answer = self.run_text(text)
        rows = [re.sub(r"\s{2,}", "  ", line) for line in answer.lines]
        if rows and re.match(r"([A-Z]+ )?ID\b", rows[0]):
            # a short id may be all letters, which elsewhere would be a word
            rows[1:] = [re.sub(r"^[a-z]{12}\b", "<id>", row) for row in rows[1:]]
        answer.lines = rows[:1] + sorted(rows[1:])
        return answer

    def run_top(self, text):
        """The first and the last column of a table of processes; numbers and times are each engine's own."""
        answer = self.run_text(text)
        rows = [line.split(None, 7) for line in answer.lines]
        answer.lines = [f"{row[0]} {row[-1]}" for row in rows]
        return answer

    def run_pretty(self, text):
        answer = self.run_text(text)
        answer.lines = [re.sub(r"\s+", " ", line).strip() for line in answer.lines]
        return answer

    def run_json(self, text):
        result = self.docker(text)
        errors = self.lines(result.stderr)
        try:
            return Answer(result.returncode, [], self.leaves(json.loads(result.stdout)), errors)
        except ValueError:
            return Answer(result.returncode, self.lines(result.stdout), None, errors)

    def leaves(self, value):
        """Paths and scalars with placeholders; keys that become the same one (ids) share what is below them."""
        found = {}
        for path, texts in leaves_of(value).items():
            found.setdefault(self.normal(path), set()).update(self.normal(text) for text in texts)
        return found

    def run_progress(self, text):
        """The end of a progress that the CLI shows; how often it polled in between does not count."""
        answer = self.run_text(text)
        answer.lines = [line for line in answer.lines if not re.match(r"overall progress|\d+/\d+: |verify: Waiting|rollback: ", line)]
        return answer

    def run_pull(self, text):
        answer = self.run_text(text)
        return Answer(answer.exit, sorted(set(answer.lines)), None, answer.errors)

    def run_logs(self, text):
        """Lines of several tasks come in any order."""
        answer = self.run_text(text)
        return Answer(answer.exit, sorted(answer.lines), None, answer.errors)

    def run_count(self, text):
        answer = self.run_text(text)
        return Answer(answer.exit, [f"{len(answer.lines)} lines"], None, answer.errors)

    def run_wait(self, text):
        """Repeats a command until its output matches; only whether it ever does is kept."""
        seconds, pattern, command = text.split(" ", 2)
        deadline = time.monotonic() + int(seconds)
        while True:
            result = self.docker(command)
            if re.search(pattern, result.stdout.strip()):
                return Answer("came")
            if time.monotonic() > deadline:
                return Answer("did not come", self.lines(result.stdout), None, self.lines(result.stderr))
            time.sleep(POLL_SECONDS)

    def run_fetch(self, port):
        """A GET of a published port, from inside the engine's namespaces."""
        script = f"import urllib.request as r; print(r.urlopen('http://192.168.77.2:{port}/', timeout=3).read().decode())"
        result = subprocess.run(self.engine.enter(sys.executable, "-c", script), capture_output=True, text=True,
                                timeout=COMMAND_SECONDS)
        body = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "<uuid>", result.stdout)
        return Answer(result.returncode, self.lines(body))

    def run_events(self, kind):
        """The shape of all events of one type: which keys come with which action."""
        # Times of filters are whole seconds, and both tell of the last change a little after its command has ended.
        until = int(time.time()) + 2
        result = self.engine.docker(["events", "--since", str(self.started), "--until", str(until), "--filter",
                                     f"type={kind}", "--format", "json"], timeout=COMMAND_SECONDS)
        shapes = set()
        for line in result.stdout.splitlines():
            event = json.loads(line)
            keys = sorted(path for path in leaves_of(event))
            shapes.add(f"{event.get('Action')}: {' '.join(keys)}")
        return Answer(result.returncode, sorted(self.normal(shape) for shape in shapes), None, self.lines(result.stderr))

    def run_api(self, text):
        """A request of its own; the answer's status counts as the exit code, and its headers' names are kept."""
        text = re.sub(r"@\{([^}]*)\}", lambda found: self.first_line(found.group(1)), text)
        method, path, *body = text.split(" ", 2)
        connection = UnixConnection(self.engine.socket)
        path = re.sub(r'[{}"\[\]]', lambda found: f"%{ord(found.group()):02X}", path)
        connection.request(method, path, body[0] if body else None, {"Content-Type": "application/json"} if body else {})
        response = connection.getresponse()
        content = response.read().decode(errors="replace")
        kept = [f"{name}: {response.headers[name]}" for name in ("Content-Type", "Ostype", "Docker-Experimental")
                if name in response.headers]
        connection.close()
        try:
            return Answer(response.status, [], self.leaves(json.loads(content)), kept)
        except ValueError:
            return Answer(response.status, self.lines(content), None, kept)
