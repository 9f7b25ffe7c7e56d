//! Terminals: their leading side comes over the console socket.

use std::fs::{self, File};
use std::io::{IoSliceMut, Read};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::net::UnixListener;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use serde_json::json;

use crate::support::{Sandbox, wait};

/// Takes the terminal that is sent to the socket.
fn receive(listener: &UnixListener) -> File {
    let (stream, _) = listener.accept().unwrap();
    let mut name = [0; 64];
    let mut parts = [IoSliceMut::new(&mut name)];
    let mut space = nix::cmsg_space!([i32; 1]);
    let message = recvmsg::<()>(stream.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC).unwrap();
    let fds = message.cmsgs().unwrap().find_map(|part| match part {
        ControlMessageOwned::ScmRights(fds) => Some(fds),
        _ => None,
    });
    // SAFETY: the descriptor was just received and nobody else has it.
    unsafe { File::from_raw_fd(fds.unwrap()[0]) }
}

/// All that is written until the other side is closed, which shows as EIO.
fn drain(mut terminal: File) -> String {
    let mut bytes = Vec::new();
    let _ = terminal.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn a_container_with_a_terminal() {
    for uid in [0, 1000] {
        // A user other than root opens its terminal again by name.
        let mut sandbox = Sandbox::new("tty; echo again > /dev/stdout; cat < /dev/null > /dev/console; exit 6");
        sandbox.spec["process"]["terminal"] = json!(true);
        sandbox.spec["process"]["user"] = json!({ "uid": uid, "gid": uid });
        fs::write(sandbox.bundle().join("config.json"), serde_json::to_vec(&sandbox.spec).unwrap()).unwrap();
        // Longer than a socket address may be.
        let long = sandbox.dir.path().join("long".repeat(40));
        fs::create_dir(&long).unwrap();
        std::os::unix::fs::symlink(sandbox.dir.path().join("console.sock"), long.join("sock")).unwrap();
        let listener = UnixListener::bind(sandbox.dir.path().join("console.sock")).unwrap();
        let (bundle, pid) = (sandbox.bundle(), sandbox.dir.path().join("pid"));
        let mut command = sandbox.command(&["create", "--bundle", bundle.to_str().unwrap()]);
        command.arg("--pid-file").arg(&pid).arg("--console-socket").arg(long.join("sock")).arg(&sandbox.id);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?} {}", sandbox.log());
        let terminal = receive(&listener);
        sandbox.start();
        let text = drain(terminal);
        assert_eq!(text, "/dev/pts/0\r\nagain\r\n", "{uid}");
        assert_eq!(wait(fs::read_to_string(pid).unwrap().parse().unwrap()), 6);
        sandbox.done(&["delete", &sandbox.id]);
        sandbox.assert_nothing_left();
    }
}

#[test]
fn an_exec_with_a_terminal() {
    let sandbox = Sandbox::new("sleep 1000");
    sandbox.create();
    sandbox.start();
    let mut process = sandbox.process("tty; echo again > /dev/stdout; ps -o tty | head -1 >/dev/null; exit 8");
    process["terminal"] = json!(true);
    process["user"] = json!({ "uid": 1000, "gid": 1000 });
    let file = sandbox.dir.path().join("p.json");
    fs::write(&file, serde_json::to_vec(&process).unwrap()).unwrap();
    let long = sandbox.dir.path().join("long".repeat(40));
    fs::create_dir(&long).unwrap();
    std::os::unix::fs::symlink(sandbox.dir.path().join("c"), long.join("sock")).unwrap();
    let listener = UnixListener::bind(sandbox.dir.path().join("c")).unwrap();
    let mut command = sandbox.command(&["exec", "--process", file.to_str().unwrap(), "--console-socket"]);
    let child = command.arg(long.join("sock")).arg(&sandbox.id).spawn().unwrap();
    assert_eq!(drain(receive(&listener)), "/dev/pts/0\r\nagain\r\n");
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(8));
}

#[test]
fn terminal_and_socket_belong_together() {
    let mut sandbox = Sandbox::new("true");
    sandbox.spec["process"]["terminal"] = json!(true);
    assert_eq!(sandbox.try_create().status.code(), Some(1));
    sandbox.assert_nothing_left();
}
