//! From launch to delete, with a runtime that isolates nothing.

mod support;

use std::fs;

use shim::launch::{ExitRecord, Readiness, SignalPath};
use shim::protocol::*;
use support::{Client, Container, eventually, has_ended};

#[test]
fn a_container_runs_and_its_end_is_recorded() {
    let container = Container::script("echo out; echo err >&2; exit 7", |_| {});
    assert_eq!(container.state().status, Status::Created);
    let mut events = container.client();
    assert!(matches!(events.ask(Request::Subscribe), Answer::State(_)));
    container.done(Request::Start);
    assert!(matches!(events.event(), Event::Started { pid, .. } if pid == container.pid));
    let Event::Exited(record) = events.event() else { panic!("no exit") };
    assert_eq!((record.pid, record.exit_code, record.signal, record.oom_killed), (container.pid, 7, None, false));
    assert!(record.started_at.is_some());
    assert_eq!(ExitRecord::read(&container.launch.exit_record).unwrap(), Some(record.clone()));
    assert_eq!((container.logged("stdout").as_str(), container.logged("stderr").as_str()), ("out\n", "err\n"));
    let state = container.state();
    assert_eq!((state.status, state.exit), (Status::Exited, Some(record)));
    container.done(Request::Delete { running: IfRunning::Refuse });
    assert!(!container.directory().exists());
    assert!(!container.root().join("runtime/c1").exists());
    assert!(container.launch.exit_record.exists());
    eventually("the shim ends", || has_ended(container.shim_pid));
}

#[test]
fn a_first_process_that_ends_before_create_is_noticed() {
    let container = Container::create(&["/bin/true", "stillborn"], |_| {});
    eventually("the end", || container.state().status == Status::Exited);
    let record = ExitRecord::read(&container.launch.exit_record).unwrap().expect("a record");
    assert_eq!((record.pid, record.signal), (container.pid, Some(9)));
    container.done(Request::Delete { running: IfRunning::Refuse });
    eventually("the shim ends", || has_ended(container.shim_pid));
}

#[test]
fn a_failed_create_tells_the_runtimes_text_and_leaves_nothing() {
    let mut container = Container::prepare(&["no-such-program"], |_| {});
    let Readiness::Failed { message } = container.spawn() else { panic!("ready") };
    assert_eq!(message, "exec: \"no-such-program\": executable file not found in $PATH");
    assert!(!container.directory().join(SOCKET_NAME).exists());
    assert!(!container.root().join("runtime/c1").exists());
}

#[test]
fn a_runtime_that_is_missing_is_told() {
    let mut container = Container::prepare(&["true"], |l| l.runtime.program = "/no/such/runtime".into());
    let Readiness::Failed { message } = container.spawn() else { panic!("ready") };
    assert!(message.contains("cannot start the runtime /no/such/runtime: No such file"), "{message}");
}

#[test]
fn the_runtimes_program_may_come_open_on_stdin() {
    let mut container = Container::prepare(&["/bin/true"], |l| l.runtime.fd = Some(0));
    let program = fs::File::open(std::mem::replace(&mut container.launch.runtime.program, "renamed".into())).unwrap();
    assert!(matches!(container.spawn_with(program.into()), Readiness::Ready { .. }));
    assert_eq!(container.start_and_wait().exit_code, 0);
}

#[test]
fn connections_beyond_the_limit_are_closed() {
    let container = Container::create(&["/bin/true"], |_| {});
    let mut clients: Vec<Client> = (0..shim::limits::CONNECTIONS).map(|_| container.client()).collect();
    let mut last = clients.pop().unwrap();
    assert!(matches!(last.ask(Request::State), Answer::State(_)));
    let mut more = (container.client(), container.client());
    assert_eq!(std::io::Read::read(&mut more.1.stream, &mut [0]).unwrap(), 0);
    drop((last, more, clients));
    eventually("there is room again", || {
        let mut client = container.client();
        client.send(Request::State);
        std::io::Read::read(&mut client.stream, &mut [0]).is_ok_and(|length| length == 1)
    });
}

#[test]
fn signals_end_it_with_128_and_more() {
    for path in [SignalPath::Direct, SignalPath::Runtime] {
        let container = Container::create(&["/bin/sleep", "1000"], |l| l.runtime.signals = path);
        container.done(Request::Start);
        let status = fs::read_to_string(format!("/proc/{}/status", container.pid)).unwrap();
        assert!(status.contains("SigBlk:\t0000000000000000"), "{status}");
        container.done(Request::Kill { signal: 15, target: KillTarget::Init });
        let record = container.wait();
        assert_eq!((record.exit_code, record.signal), (143, Some(15)));
        let answer = container.ask(Request::Kill { signal: 15, target: KillTarget::Init });
        assert!(matches!(answer, Answer::Error { kind: ErrorKind::NotRunning, .. }), "{answer:?}");
    }
}

#[test]
fn what_does_not_fit_the_state_is_refused() {
    let container = Container::create(&["/bin/sleep", "1000"], |_| {});
    let kind = |request| match container.ask(request) {
        Answer::Error { kind, .. } => kind,
        other => panic!("{other:?}"),
    };
    assert!(matches!(container.exec("e", &["true"], |_| {}).0, Answer::Error { kind: ErrorKind::NotRunning, .. }));
    container.done(Request::Start);
    assert_eq!(kind(Request::Start), ErrorKind::Running);
    assert_eq!(kind(Request::Delete { running: IfRunning::Refuse }), ErrorKind::Running);
    assert_eq!(kind(Request::ExecState { id: "none".to_owned() }), ErrorKind::NotFound);
    container.done(Request::Pause);
    assert_eq!(container.state().status, Status::Paused);
    container.done(Request::Resume);
    assert_eq!(container.state().status, Status::Running);
    container.done(Request::Update { resources: serde_json::json!({"memory": {"limit": 5}}) });
    assert_eq!(fs::read_to_string(container.root().join("runtime/c1/resources")).unwrap(), r#"{"memory":{"limit":5}}"#);
    container.done(Request::Delete { running: IfRunning::Kill });
    let record = ExitRecord::read(&container.launch.exit_record).unwrap().unwrap();
    assert_eq!(record.signal, Some(9));
}

#[test]
fn a_container_killed_before_its_start_has_a_record_without_start() {
    let container = Container::create(&["/bin/true"], |_| {});
    container.done(Request::Kill { signal: 9, target: KillTarget::Init });
    let record = container.wait();
    assert_eq!((record.exit_code, record.started_at), (137, None));
    assert!(matches!(container.ask(Request::Start), Answer::Error { kind: ErrorKind::NotRunning, .. }));
}

#[test]
fn another_client_finds_everything_when_the_first_is_gone() {
    let container =
        Container::create(&["/bin/sh", "-c", "echo before; read line; echo $line"], |l| l.open_stdin = true);
    // The first engine, killed in the middle of a frame and of a stream.
    let mut stream = container.client();
    stream.ask(Request::Attach(Attach { stdin: true, stdout: true, stderr: true }));
    container.done(Request::Start);
    stream.read_until("before\n");
    let mut half = container.client();
    std::io::Write::write_all(&mut half.stream, &[0, 0, 0]).unwrap();
    drop((stream, half));
    eventually("the attacher is let go", || container.state().attached == 0);
    // The next one.
    let mut next = Client::connect(&container.directory());
    let Answer::Hello { version, container: id, shim_pid } = next.ask(Request::Hello { version: 99 }) else {
        panic!("no hello")
    };
    assert_eq!((version, id.as_str(), shim_pid), (VERSION, "c1", container.shim_pid));
    let state = container.state();
    assert_eq!((state.status, state.pid), (Status::Running, container.pid));
    let mut stream = container.client();
    stream.ask(Request::Attach(Attach { stdin: true, stdout: true, stderr: false }));
    stream.send_frame(FrameKind::Stdin, b"after\n");
    let (stdout, _, end) = stream.read_stream();
    assert_eq!(String::from_utf8_lossy(&stdout), "after\n");
    assert_eq!(end, End { reason: EndReason::Exited, exit_code: Some(0) });
    assert_eq!(container.logged("stdout"), "before\nafter\n");
}

#[test]
fn unknown_requests_are_answered_and_bad_frames_end_the_connection() {
    let container = Container::create(&["/bin/true"], |_| {});
    let mut client = container.client();
    client.send_frame(FrameKind::Control, br#"{"seq":42,"request":{"of_the_future":{}},"more":1}"#);
    let Message::Reply { seq: 42, answer: Answer::Error { kind: ErrorKind::UnknownRequest, .. } } = client.message()
    else {
        panic!("not refused")
    };
    client.send_frame(FrameKind::Control, br#"{"seq":43,"request":{"hello":{"version":2,"more":1}},"more":1}"#);
    assert!(matches!(client.message(), Message::Reply { seq: 43, answer: Answer::Hello { .. } }));
    std::io::Write::write_all(&mut client.stream, &[0, 0xff, 0, 0, 0]).unwrap();
    assert_eq!(std::io::Read::read(&mut client.stream, &mut [0]).unwrap(), 0);
    assert_eq!(container.state().status, Status::Created);
}

#[test]
fn children_of_the_container_that_hold_its_output_are_not_awaited_for_ever() {
    let container = Container::script("setsid sleep 5 & echo done", |_| {});
    let record = container.start_and_wait();
    assert_eq!(record.exit_code, 0);
    assert_eq!(container.logged("stdout"), "done\n");
}

#[test]
fn an_idle_shim_owns_little_memory() {
    let container = Container::script("head -c 3000000 /dev/zero; echo; echo end; exec sleep 1000", |_| {});
    let mut stream = container.client();
    stream.ask(Request::Attach(Attach { stdin: false, stdout: true, stderr: true }));
    container.done(Request::Start);
    stream.read_until("end\n");
    drop(stream);
    let own_kib = || {
        let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", container.shim_pid)).unwrap();
        let kib = |name: &str| {
            let line = rollup.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
        };
        kib("Private_Dirty:")
    };
    // What it shares with other shims is the program's; without other processes of it, PSS would count that too.
    eventually("memory is given back", || own_kib() <= 150);
}
