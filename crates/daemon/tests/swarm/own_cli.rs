//! Skep's own command line beside docker's, on one daemon: the same words, columns, order and exit codes.

use std::fs::File;
use std::process::{Command, Stdio};

use nix::pty::{Winsize, openpty};

use crate::support::{Daemon, Done, SKEP, host_address, until};

/// The release whose texts are copied. Others say some things differently: there, only exit codes are compared.
const DOCKER: &str = "Docker version 28.";

/// Texts such as "5 seconds ago" move on between two commands: how often both are asked before they count as different.
const TRIES: usize = 5;

/// What Skep says instead, in its own name.
fn in_skeps_name(text: &str) -> String {
    text.replace("docker: ", "skep: ").replace("'docker run --help'", "'skep run --help'")
}

/// Whether both say the same.
fn compare(daemon: &Daemon, line: &str, texts: bool) -> Result<(), String> {
    let mut both = None;
    for _ in 0..TRIES {
        let (docker, own) = (daemon.try_docker(line), daemon.try_skep(line));
        let docker = Done { err: in_skeps_name(&docker.err), ..docker };
        let same = !texts || (docker.out == own.out && docker.err == own.err);
        if same && docker.code == own.code {
            return Ok(());
        }
        both = Some((docker, own));
    }
    let (docker, own) = both.expect("a try");
    Err(format!(
        "{line}: {} and {}\n--- docker\n{}{}--- skep\n{}{}",
        docker.code, own.code, docker.out, docker.err, own.out, own.err
    ))
}

#[test]
fn both_command_lines_say_the_same() {
    let daemon = Daemon::start(&[]);
    let texts =
        String::from_utf8_lossy(&Command::new("docker").arg("--version").output().unwrap().stdout).starts_with(DOCKER);
    if !texts {
        eprintln!("docker is not {DOCKER}x: only exit codes are compared");
    }
    daemon.load_tiny();
    daemon.docker(&daemon.init_words(host_address()));
    let file = daemon.write("secret", "hidden");
    daemon.docker(&format!("secret create --label a=b key {file}"));
    daemon.docker(&format!("config create page {file}"));
    daemon.docker("volume create --label a=b store");
    daemon.docker(
        "run -d --name one --label colour=blue -v store:/data -p 127.0.0.1::9005 tiny-service \
         echo a&b <c> and more words than a column has room for",
    );
    daemon.docker("run -d --name two -P tiny-service");
    daemon.docker("tag tiny-service:latest tiny-copy:1");
    let port = daemon.port;
    daemon.docker(&format!(
        "service create -d --name web --replicas 2 --publish {port}:9005 --env A=b --label c=d --secret key \
         --config source=page,target=/page --mount type=volume,source=store,target=/data --limit-memory 64M \
         --constraint node.role==manager --update-delay 5s --rollback-parallelism 2 tiny-service"
    ));
    daemon.docker("service create -d --name plain --mode global tiny-service");
    daemon.until_replicas("web", "2/2");
    daemon.until_replicas("plain", "1/1");
    let lines = "
        ps | ps -a | ps -q | ps -aq --no-trunc | ps --no-trunc | ps -n 2 | ps -l | ps -as | ps -lq | ps -f name=one
        ps -a --format json | ps -a --format {{.Names}} | ps -a --format {{.ID}}:{{.Labels}};{{.Ports}};{{.Size}}
        ps --filter nope=1
        images | images -q | images --digests | images --no-trunc | images tiny-copy | images nope | images -a
        images --format {{.Repository}}:{{.Tag}} | images --format json | image history tiny-service
        image history --no-trunc tiny-service | image history -q tiny-service | image history nope
        image inspect tiny-service | image inspect tiny-service tiny-copy:1 | image inspect nope
        image inspect -f {{.Id}} tiny-service | image inspect -f {{.Id}} nope | image prune -f
        inspect one | inspect web | inspect tiny-copy:1 | inspect nope | inspect one nope | inspect -f {{.Id}} one
        inspect --type image one | inspect -s one | container inspect two
        inspect -f {{.Config.Labels.colour}} one | container inspect nope
        service ls | service ls -q | service ls --format {{.Name}}={{.Replicas}} | service ls --format json
        service ps web | service ps -q web | service ps --no-trunc web | service ps --filter node=self web
        service ps nope | service inspect web | service inspect --pretty web | service inspect --pretty plain
        service inspect -f {{.ID}} web | service inspect --pretty nope | node ps | node ps -q
        secret ls | secret ls --format {{.Name}} | secret inspect key | secret inspect --pretty key | secret inspect nope
        config ls | config inspect page | config inspect --pretty page | volume ls | volume inspect store
        node ls | node inspect self | node inspect nope
        info -f {{.ID}} | version -f {{.Server.Version}}
        rm -f nope | rm nope | start nope | stop nope | kill nope | logs nope | exec nope ls
        events --since 10m --until 5m | volume rm nope | secret rm nope | service rm nope | rmi nope
        run --pull never --rm tiny-service:nope
        run --name one tiny-service
    ";
    let wrong: Vec<String> = lines
        .split(['\n', '|'])
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .filter_map(|line| compare(&daemon, line, texts).err())
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    daemon.docker("service rm web plain");
    daemon.docker("rm -f one two");
    daemon.docker("swarm leave --force");
}

#[test]
fn a_reader_that_has_enough_ends_the_command() {
    let daemon = Daemon::start(&[]);
    daemon.docker("volume create one");
    let mut process = Command::new(SKEP)
        .args(["-H", &daemon.host(), "events", "--since", "1h", "--until", "0s"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("skep");
    drop(process.stdout.take());
    let done = Done::of(process.wait_with_output().expect("its end"));
    assert_eq!((done.code, done.err.as_str()), (141, ""));
    daemon.docker("volume rm one");
}

/// A command of Skep's own at a terminal.
struct AtTerminal {
    process: std::process::Child,
    master: File,
    slave: String,
}

impl AtTerminal {
    fn start(daemon: &Daemon, line: &str) -> Self {
        let size = Winsize { ws_row: 30, ws_col: 90, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(&size, None).expect("a terminal");
        let slave = nix::unistd::ttyname(&pty.slave).expect("its name").display().to_string();
        let end = || Stdio::from(pty.slave.try_clone().expect("the terminal"));
        let mut command = Command::new("setsid");
        command.args(["--ctty", SKEP, "-H", &daemon.host()]).args(line.split(' ')).env_remove("DOCKER_HOST");
        let process = command.stdin(end()).stdout(end()).stderr(end()).spawn().expect("setsid");
        Self { process, master: pty.master.into(), slave }
    }

    fn resize(&self, rows: u16, columns: u16) {
        let (rows, columns) = (rows.to_string(), columns.to_string());
        let done = Command::new("stty").args(["-F", &self.slave, "rows", &rows, "cols", &columns]).status();
        assert!(done.expect("stty").success());
    }

    fn press(&mut self, keys: &[u8]) {
        use std::io::Write;
        self.master.write_all(keys).expect("keys");
    }

    fn code(mut self) -> i32 {
        until("the command's end", || self.process.try_wait().expect("wait")).code().expect("a code")
    }
}

/// Waits until the terminal that this process has is so large.
fn until_size(pid: &str, size: &str) {
    until(&format!("a terminal of {size}"), || {
        let shown = Command::new("stty").args(["-F", &format!("/proc/{pid}/fd/0"), "size"]).output().expect("stty");
        (String::from_utf8_lossy(&shown.stdout).trim() == size).then_some(())
    });
}

#[test]
fn a_container_has_the_terminals_size_and_can_be_let_go() {
    let daemon = Daemon::start(&[]);
    daemon.load_tiny();
    let mut run = AtTerminal::start(&daemon, "run -it --name one tiny-service");
    let pid = until("the container", || {
        let seen = daemon.try_docker("inspect -f {{.State.Pid}} one");
        (seen.code == 0 && seen.out.trim() != "0").then(|| seen.out.trim().to_owned())
    });
    until_size(&pid, "30 90");
    run.resize(35, 97);
    until_size(&pid, "35 97");
    run.press(b"\x10\x11");
    assert_eq!(run.code(), 0);

    let mut exec = AtTerminal::start(&daemon, "exec -it --detach-keys ctrl-a,x one /tiny-service sleep");
    let pid = until("the command", || {
        let shown = daemon.docker("top one");
        let line = shown.lines().find(|line| line.ends_with("/tiny-service sleep"))?;
        line.split_whitespace().nth(1).map(str::to_owned)
    });
    until_size(&pid, "30 90");
    exec.resize(20, 60);
    until_size(&pid, "20 60");
    exec.press(b"\x01");
    exec.press(b"x");
    assert_eq!(exec.code(), 1);
    assert_eq!(daemon.docker("ps -q").lines().count(), 1, "the container runs on");
    daemon.docker("rm -f one");
}
