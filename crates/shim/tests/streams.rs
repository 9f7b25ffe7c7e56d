//! Logs, attachers, terminals, execs.

mod support;

use std::fs;
use std::time::{Duration, Instant};

use serde_json::json;
use shim::launch::LogDriver;
use shim::protocol::*;
use support::{Container, eventually};

const ALL: Attach = Attach { stdin: true, stdout: true, stderr: true };

#[test]
fn partial_lines_are_logged_as_dockerd_does() {
    let container = Container::script("head -c 20000 /dev/zero | tr '\\0' x; echo; printf tail", |l| {
        l.log.attrs = [("tag".to_owned(), "t".to_owned())].into();
    });
    assert_eq!(container.start_and_wait().exit_code, 0);
    let log = container.log();
    let lengths: Vec<_> = log.iter().map(|line| line["log"].as_str().unwrap().len()).collect();
    assert_eq!(lengths, [16384, 3617, 4]);
    assert_eq!(log[0]["attrs"], json!({"tag": "t"}));
    assert_eq!(log[0]["time"], log[1]["time"]);
    assert_eq!(log[2]["log"], "tail");
}

#[test]
fn the_log_is_rotated_and_compressed() {
    let container = Container::script("i=0; while [ $i -lt 300 ]; do echo line $i; i=$((i+1)); done", |l| {
        l.log.max_size = 4096;
        l.log.max_file = 3;
        l.log.compress = true;
    });
    container.start_and_wait();
    let path = |extension: &str| format!("{}{extension}", container.launch.log.path.display());
    eventually("the last file is compressed", || {
        fs::metadata(path(".1")).is_err() && fs::metadata(path(".1.gz")).is_ok()
    });
    assert!(fs::metadata(path(".2.gz")).is_ok());
    assert!(fs::metadata(path(".3.gz")).is_err());
    assert_eq!(container.log().last().unwrap()["log"], "line 299\n");
    assert!(container.state().log == LogHealth::default());
}

#[test]
fn a_full_disk_is_counted_and_disturbs_nobody() {
    let container = Container::script("echo lost; echo lost", |l| l.log.path = "/dev/full".into());
    let mut stream = container.client();
    stream.ask(Request::Attach(ALL));
    assert_eq!(container.start_and_wait().exit_code, 0);
    assert_eq!(stream.read_stream().0, b"lost\nlost\n");
    let health = container.state().log;
    assert_eq!(health.lost_lines, 2);
    assert!(health.last_error.unwrap().contains("No space left"), "the cause is told");
}

#[test]
fn the_driver_none_writes_nothing() {
    let container = Container::script("echo out", |l| l.log.driver = LogDriver::None);
    let mut stream = container.client();
    stream.ask(Request::Attach(ALL));
    container.start_and_wait();
    assert_eq!(stream.read_stream().0, b"out\n");
    assert!(!container.launch.log.path.exists());
}

#[test]
fn several_attachers_get_what_they_asked_for() {
    let container = Container::script("echo out; echo err >&2", |_| {});
    let attach = |stdout, stderr| {
        let mut stream = container.client();
        stream.ask(Request::Attach(Attach { stdin: false, stdout, stderr }));
        stream
    };
    let streams = [attach(true, true), attach(true, false), attach(false, true)];
    assert_eq!(container.state().attached, 3);
    container.start_and_wait();
    let got = streams.map(|mut stream| {
        let (stdout, stderr, end) = stream.read_stream();
        assert_eq!(end, End { reason: EndReason::Exited, exit_code: Some(0) });
        (stdout, stderr)
    });
    assert_eq!(got[0], (b"out\n".to_vec(), b"err\n".to_vec()));
    assert_eq!(got[1], (b"out\n".to_vec(), vec![]));
    assert_eq!(got[2], (vec![], b"err\n".to_vec()));
    let mut late = container.client();
    assert!(matches!(late.ask(Request::Attach(ALL)), Answer::Done));
    assert_eq!(late.read_stream().2.exit_code, Some(0));
}

#[test]
fn a_reader_that_stands_still_is_cut_off_and_one_that_is_slow_loses_nothing() {
    const SIZE: usize = 8_000_000;
    let script = format!("head -c {SIZE} /dev/zero; echo end >&2");
    let container = Container::script(&script, |l| {
        l.attach_stall_ms = 300;
        l.log.driver = LogDriver::None;
    });
    let mut still = container.client();
    still.ask(Request::Attach(ALL));
    let mut slow = container.client();
    slow.ask(Request::Attach(ALL));
    container.done(Request::Start);
    let (stdout, stderr, end) = slow.read_stream();
    assert_eq!((stdout.len(), &stderr[..]), (SIZE, &b"end\n"[..]));
    assert_eq!(end.reason, EndReason::Exited);
    assert_eq!(container.wait().exit_code, 0);
    let (stdout, _, end) = still.read_stream();
    assert!(stdout.len() < SIZE);
    assert_eq!(end, End { reason: EndReason::TooSlow, exit_code: None });
}

#[test]
fn stdin_ends_with_the_first_attacher_only_if_asked() {
    let once = Container::create(&["/bin/cat"], |l| (l.open_stdin, l.stdin_once) = (true, true));
    let mut stream = once.client();
    stream.ask(Request::Attach(ALL));
    once.done(Request::Start);
    let big = vec![b'x'; 500_000];
    let mut writer = support::Client { stream: stream.stream.try_clone().unwrap() };
    let sender = std::thread::spawn(move || {
        writer.send_frame(FrameKind::Stdin, &big);
        writer.send_frame(FrameKind::Stdin, b"");
    });
    let (stdout, _, end) = stream.read_stream();
    sender.join().unwrap();
    assert_eq!((stdout.len(), end.exit_code), (500_000, Some(0)));

    let kept = Container::create(&["/bin/cat"], |l| l.open_stdin = true);
    let mut stream = kept.client();
    stream.ask(Request::Attach(ALL));
    kept.done(Request::Start);
    stream.send_frame(FrameKind::Stdin, b"one\n");
    stream.send_frame(FrameKind::Stdin, b"");
    stream.read_until("one\n");
    drop(stream);
    eventually("the attacher is let go", || kept.state().attached == 0);
    assert_eq!(kept.state().status, Status::Running);
    kept.done(Request::CloseStdin);
    assert_eq!(kept.wait().exit_code, 0);
}

#[test]
fn a_terminal_has_the_size_it_is_given() {
    let script = "trap 'stty size' WINCH; stty size; while :; do read line && echo got $line; done";
    let container = Container::script(script, |l| {
        l.terminal = true;
        l.open_stdin = true;
        l.size = Some(WindowSize { rows: 24, columns: 80 });
    });
    let mut stream = container.client();
    stream.ask(Request::Attach(ALL));
    container.done(Request::Start);
    stream.read_until("24 80");
    container.done(Request::Resize(WindowSize { rows: 50, columns: 132 }));
    stream.read_until("50 132");
    stream.send_frame(FrameKind::Stdin, b"hello\n");
    stream.read_until("got hello");
    container.done(Request::Kill { signal: 9, target: KillTarget::Init });
    assert_eq!(container.wait().exit_code, 137);
    assert!(container.logged("stdout").contains("got hello\r\n"));
}

#[test]
fn execs_have_their_streams_and_codes() {
    let container = Container::create(&["/bin/sleep", "1000"], |_| {});
    container.done(Request::Start);
    let (answer, mut stream) =
        container.exec("e1", &["/bin/sh", "-c", "cat; echo err >&2; exit 3"], |e| e.stdin = true);
    let Answer::Exec { pid } = answer else { panic!("{answer:?}") };
    assert!(container.state().execs.iter().any(|e| e.id == "e1" && e.pid == pid && e.exit_code.is_none()));
    let taken = container.exec("e1", &["/bin/true"], |_| {}).0;
    assert!(matches!(taken, Answer::Error { kind: ErrorKind::Exists, .. }), "{taken:?}");
    stream.send_frame(FrameKind::Stdin, b"in\n");
    stream.send_frame(FrameKind::Stdin, b"");
    let (stdout, stderr, end) = stream.read_stream();
    assert_eq!((&stdout[..], &stderr[..], end.exit_code), (&b"in\n"[..], &b"err\n"[..], Some(3)));
    let Answer::ExecState(state) = container.ask(Request::ExecState { id: "e1".to_owned() }) else {
        panic!("forgotten")
    };
    assert_eq!((state.pid, state.exit_code), (pid, Some(3)));
    let (answer, _) = container.exec("e2", &["no-such"], |_| {});
    let Answer::Error { kind: ErrorKind::Runtime, message } = answer else { panic!("{answer:?}") };
    assert_eq!(message, "exec: \"no-such\": executable file not found in $PATH");
    for round in 0..20 {
        let (_, mut stream) = container.exec(&format!("quick{round}"), &["/bin/echo", "quick"], |_| {});
        let (stdout, _, end) = stream.read_stream();
        assert_eq!((&stdout[..], end.exit_code), (&b"quick\n"[..], Some(0)));
    }
    assert_eq!(container.state().status, Status::Running);
    assert_eq!(container.logged("stdout"), "");
}

#[test]
fn a_detached_exec_tells_its_end_to_subscribers() {
    let container = Container::create(&["/bin/sleep", "1000"], |_| {});
    container.done(Request::Start);
    let mut events = container.client();
    events.ask(Request::Subscribe);
    let (answer, _client) = container.exec("d", &["/bin/sleep", "1000"], |e| e.mode = ExecMode::Detached);
    assert!(matches!(answer, Answer::Exec { .. }), "{answer:?}");
    container.done(Request::ExecKill { id: "d".to_owned(), signal: 9 });
    let Event::ExecExited(state) = events.event() else { panic!("no exit") };
    assert_eq!((state.id.as_str(), state.exit_code), ("d", Some(137)));
}

#[test]
fn an_exec_can_have_a_terminal() {
    let container = Container::create(&["/bin/sleep", "1000"], |_| {});
    container.done(Request::Start);
    let script = "stty size; read line; stty size";
    let (answer, mut stream) = container.exec("t", &["/bin/sh", "-c", script], |e| {
        (e.terminal, e.stdin, e.size) = (true, true, Some(WindowSize { rows: 10, columns: 20 }));
    });
    assert!(matches!(answer, Answer::Exec { .. }), "{answer:?}");
    stream.read_until("10 20");
    container.done(Request::ExecResize { id: "t".to_owned(), size: WindowSize { rows: 30, columns: 40 } });
    stream.send_frame(FrameKind::Stdin, b"\n");
    stream.read_until("30 40");
    assert_eq!(stream.read_stream().2.exit_code, Some(0));
}

#[test]
fn a_slow_exec_client_slows_the_exec_and_loses_nothing() {
    const SIZE: usize = 6_000_000;
    let container = Container::create(&["/bin/sleep", "1000"], |l| l.attach_stall_ms = 1);
    container.done(Request::Start);
    let (_, mut stream) = container.exec("big", &["/usr/bin/head", "-c", &SIZE.to_string(), "/dev/zero"], |_| {});
    // The shim answers others while this client takes nothing.
    let until = Instant::now() + Duration::from_millis(200);
    while Instant::now() < until {
        assert_eq!(container.state().execs.len(), 1);
    }
    let (stdout, _, end) = stream.read_stream();
    assert_eq!((stdout.len(), end.exit_code), (SIZE, Some(0)));
}
