//! People, their machine and what they do with the built program. Every wait has an end, every process ends with
//! the test.
#![allow(
    dead_code,
    clippy::allow_attributes,
    reason = "two test binaries use this, neither all of it"
)]

pub(crate) mod window;
pub(crate) mod wire;

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;

/// What ought to be quick gets so long on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// A pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(25);

/// A verb that is not done by then hangs.
const VERB_MAX: Duration = Duration::from_secs(60);

/// The built program, or the one that `COLLAB_P2P` names.
pub(crate) fn program() -> PathBuf {
    let built = env!("CARGO_BIN_EXE_collab-p2p");
    std::env::var_os("COLLAB_P2P").map_or_else(|| built.into(), PathBuf::from)
}

/// Looks again and again until there is something to see.
#[track_caller]
pub(crate) fn eventually<T>(
    what: &str,
    within: Duration,
    mut look: impl FnMut() -> Result<T, String>,
) -> T {
    let begun = Instant::now();
    loop {
        match look() {
            Ok(seen) => return seen,
            Err(instead) if begun.elapsed() > within => {
                panic!("not within {within:?}: {what}\ninstead: {instead}")
            }
            Err(_) => std::thread::sleep(LOOK_EVERY),
        }
    }
}

/// One computer and one account on it: its users share a run folder, nothing else.
#[derive(Debug)]
pub(crate) struct Machine {
    root: TempDir,
    users: AtomicU32,
}

impl Machine {
    pub(crate) fn new() -> Self {
        let root = tempfile::Builder::new().prefix("cp").tempdir().unwrap();
        std::fs::create_dir(root.path().join("run")).unwrap();
        Self {
            root,
            users: AtomicU32::new(0),
        }
    }

    /// A scratch folder that goes with the machine.
    pub(crate) fn path(&self) -> &Path {
        self.root.path()
    }

    /// Somebody with folders of their own. The folders are numbered: a name in a path would hide a leak.
    pub(crate) fn user(&self, name: &str) -> User {
        let number = self.users.fetch_add(1, Ordering::Relaxed) + 1;
        let home = self.root.path().join(number.to_string());
        std::fs::create_dir(&home).unwrap();
        User {
            name: name.to_owned(),
            home,
            run: self.root.path().join("run"),
            before: Vec::new(),
        }
    }

    /// The same as [`Self::user`], with a run folder of its own on this machine: nodes of one key would meet in
    /// the shared one. The first node must have run.
    pub(crate) fn beside(&self, name: &str) -> User {
        let mut user = self.user(name);
        let run = user.home.join("run");
        let folder = run.join("collab-p2p");
        let private = |path: &Path| {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
            std::fs::set_permissions(path, mode).unwrap();
        };
        std::fs::create_dir_all(&folder).unwrap();
        private(&run);
        private(&folder);
        let mark = user.run.join("collab-p2p").join("machine.key");
        std::fs::copy(mark, folder.join("machine.key")).unwrap();
        user.run = run;
        user
    }

    /// Somebody shares a terminal that runs `command`.
    pub(crate) fn share(&self, name: &str, flags: &[&str], command: &[&str]) -> Node {
        self.user(name).share(flags, command)
    }

    /// Somebody joins.
    pub(crate) fn join(&self, name: &str, ticket: &str) -> Node {
        self.user(name).join(ticket, &[])
    }
}

/// Somebody who uses the program.
#[derive(Debug, Clone)]
pub(crate) struct User {
    pub(crate) name: String,
    home: PathBuf,
    run: PathBuf,
    /// What stands before the program, like `ip netns exec a`.
    before: Vec<String>,
}

/// What a command did.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl User {
    /// The same user, whose programs are started by these words.
    pub(crate) fn started_by(mut self, before: &[&str]) -> Self {
        self.before = before.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// The same user on another machine: other nodes find each other there.
    pub(crate) fn moves_to(mut self, machine: &Machine) -> Self {
        self.run = machine.path().join("run");
        self
    }

    /// From now on this user's nodes listen there and nowhere else.
    pub(crate) fn listens(self, addr: &str) -> Self {
        let path = self.home.join("config/collab-p2p/config.toml");
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, format!("[network]\nlisten = [\"{addr}\"]\n")).unwrap();
        self
    }

    /// Where this user's state is.
    pub(crate) fn state(&self) -> PathBuf {
        self.home.join("state")
    }

    /// This user's folder.
    pub(crate) fn home(&self) -> &Path {
        &self.home
    }

    /// The process of this user's only node, in a window or not.
    #[track_caller]
    pub(crate) fn pid(&self) -> Pid {
        let records = self.run.join("collab-p2p/nodes");
        let state = self.state().join("collab-p2p").display().to_string();
        let pid = eventually("the node is registered", SOON, || {
            let texts = files_below(&records)
                .into_iter()
                .filter_map(|file| std::fs::read_to_string(file).ok());
            let records = texts.filter_map(|text| serde_json::from_str::<Value>(&text).ok());
            let mine = records.filter(|record| record["state"] == state);
            mine.filter_map(|record| record["pid"].as_i64())
                .next_back()
                .ok_or_else(|| "no record".to_owned())
        });
        Pid::from_raw(i32::try_from(pid).unwrap())
    }

    /// The variables that this user's programs see, and no others.
    pub(crate) fn env(&self) -> Vec<(String, String)> {
        let path = std::env::var("PATH").unwrap();
        let place = |path: PathBuf| path.display().to_string();
        let set = [
            ("PATH", path),
            ("HOME", place(self.home.clone())),
            ("XDG_STATE_HOME", place(self.state())),
            ("XDG_CONFIG_HOME", place(self.home.join("config"))),
            ("XDG_RUNTIME_DIR", place(self.run.clone())),
            ("USER", self.name.clone()),
            ("LANG", "C.UTF-8".to_owned()),
            ("TERM", "xterm-256color".to_owned()),
            ("SHELL", "/bin/sh".to_owned()),
            ("PS1", "$ ".to_owned()),
        ];
        set.map(|(name, value)| (name.to_owned(), value)).into()
    }

    /// The program with these arguments, as this user starts it.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, args: &[S]) -> Command {
        let mut command = match self.before.split_first() {
            Some((first, more)) => {
                let mut command = Command::new(first);
                command.args(more).arg(program());
                command
            }
            None => Command::new(program()),
        };
        command
            .args(args)
            .env_clear()
            .envs(self.env())
            .current_dir(&self.home)
            .stdin(Stdio::null());
        command
    }

    /// Runs the program to its end.
    pub(crate) fn run<S: AsRef<OsStr>>(&self, args: &[S]) -> Ran {
        finish(self.command(args), b"")
    }

    /// Runs the program to its end with something on stdin.
    pub(crate) fn run_with<S: AsRef<OsStr>>(&self, args: &[S], stdin: &[u8]) -> Ran {
        finish(self.command(args), stdin)
    }

    /// Runs a verb that must succeed; its stdout.
    #[track_caller]
    pub(crate) fn does<S: AsRef<OsStr>>(&self, args: &[S]) -> String {
        let ran = self.run(args);
        assert_eq!(ran.code, 0, "{}: {}{}", self.name, ran.out, ran.err);
        ran.out
    }

    /// Runs a verb with `--json` that must succeed; the value that it prints.
    #[track_caller]
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let out = self.does(&[args, &["--json"]].concat());
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
    }

    /// Runs a verb that must be refused with this exit code and error code, in the promised form.
    #[track_caller]
    pub(crate) fn refused<S: AsRef<OsStr>>(&self, args: &[S], exit: i32, code: &str) -> String {
        let ran = self.run(args);
        ran.is_refusal(exit, code)
    }

    /// Starts the program with its streams open, and does not wait for anything.
    pub(crate) fn spawns<S: AsRef<OsStr>>(&self, args: &[S]) -> Spawned {
        Spawned::of(self.command(args))
    }

    /// Shares a terminal without a user interface; returns when the ticket stands.
    #[track_caller]
    pub(crate) fn share(&self, flags: &[&str], command: &[&str]) -> Node {
        let words = ["share", "--headless", "--json", "--no-mdns", "--name"];
        let words = [&words[..], &[&self.name], flags, &["--"], command].concat();
        Node::start(self, &words)
    }

    /// Joins without a user interface; returns when admitted and in sync.
    #[track_caller]
    pub(crate) fn join(&self, ticket: &str, flags: &[&str]) -> Node {
        let words = ["join", "--headless", "--json", "--no-mdns", "--name"];
        let words = [&words[..], &[&self.name], flags, &[ticket]].concat();
        Node::start(self, &words)
    }

    /// Starts a node with exactly these words; returns when it is ready.
    #[track_caller]
    pub(crate) fn starts(&self, words: &[&str]) -> Node {
        Node::start(self, words)
    }

    /// Goes on with a membership; returns as soon as the store is loaded.
    #[track_caller]
    pub(crate) fn resume(&self) -> Node {
        Node::start(self, &["resume", "--headless", "--json", "--no-mdns"])
    }

    /// Says something.
    #[track_caller]
    pub(crate) fn says(&self, text: &str) {
        self.does(&["chat", text]);
    }

    /// What was said, as (name, text).
    #[track_caller]
    pub(crate) fn chat(&self) -> Vec<(String, String)> {
        let messages = self.json(&["chat"]);
        let text = |message: &Value, key: &str| message[key].as_str().unwrap().to_owned();
        items(&messages)
            .iter()
            .map(|message| (text(message, "name"), text(message, "text")))
            .collect()
    }

    /// Waits until this was said, as seen by this user.
    #[track_caller]
    pub(crate) fn hears(&self, text: &str) {
        eventually(&format!("{} hears {text:?}", self.name), SOON, || {
            let chat = self.chat();
            let heard = chat.iter().any(|(_, said)| said == text);
            heard.then_some(()).ok_or_else(|| format!("{chat:?}"))
        });
    }

    /// The rows of the shared screen as text.
    #[track_caller]
    pub(crate) fn screen(&self) -> String {
        self.does(&["screen"])
    }

    /// Waits until the shared screen shows this.
    #[track_caller]
    pub(crate) fn sees(&self, text: &str) {
        eventually(&format!("{} sees {text:?}", self.name), SOON, || {
            let ran = self.run(&["screen"]);
            let seen = ran.out.contains(text);
            seen.then_some(())
                .ok_or_else(|| format!("{}{}", ran.out, ran.err))
        });
    }

    /// Participants by name and status.
    #[track_caller]
    pub(crate) fn who(&self) -> Vec<(String, String)> {
        let people = self.json(&["who"]);
        let text = |one: &Value, key: &str| one[key].as_str().unwrap().to_owned();
        items(&people)
            .iter()
            .map(|one| (text(one, "name"), text(one, "status")))
            .collect()
    }

    /// Waits until somebody has this status, as seen by this user; `here` is any but gone.
    #[track_caller]
    pub(crate) fn finds(&self, name: &str, status: &str, within: Duration) {
        eventually(
            &format!("{} finds {name} {status}", self.name),
            within,
            || {
                let who = self.who();
                let fits = |is: &str| is == status || (status == "here" && is != "gone");
                let found = who.iter().any(|(one, is)| one == name && fits(is));
                found.then_some(()).ok_or_else(|| format!("{who:?}"))
            },
        );
    }

    /// Waits until `control status` says this.
    #[track_caller]
    pub(crate) fn finds_control(&self, line: &str) {
        let what = format!("{} finds that {line}", self.name);
        eventually(&what, SOON, || {
            let status = self.does(&["control", "status"]);
            // How long it lasts stands behind a comma.
            let longer = format!("{line}, ");
            let found = status
                .lines()
                .any(|one| one == line || one.starts_with(&longer));
            found.then_some(()).ok_or(status)
        });
    }

    /// Waits until `control status` says that `name` asks, and by which key.
    #[track_caller]
    pub(crate) fn finds_asking(&self, name: &str) {
        eventually(
            &format!("{} finds that {name} asks", self.name),
            SOON,
            || {
                let status = self.does(&["control", "status"]);
                let asks = |line: &str| {
                    line.starts_with(&format!("{name} (key "))
                        && line.ends_with(") asks for control")
                };
                status.lines().any(asks).then_some(()).ok_or(status)
            },
        );
    }

    /// Every file below this user's state folder.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        files_below(&self.state())
    }
}

impl Ran {
    /// Checks that this was a refusal in the promised form, and returns what failed and why.
    #[track_caller]
    pub(crate) fn is_refusal(&self, exit: i32, code: &str) -> String {
        let told = || format!("exit {}\n{}{}", self.code, self.out, self.err);
        assert_eq!(self.code, exit, "{}", told());
        assert!(!self.err.contains("panicked"), "{}", told());
        let lines: Vec<&str> = self.err.lines().collect();
        let begins = format!("error[{code}]: ");
        let error = lines.iter().position(|line| line.starts_with(&begins));
        let error = error.unwrap_or_else(|| panic!("expected {begins:?}: {}", told()));
        let help = lines.get(error + 1).copied().unwrap_or_default();
        assert!(help.starts_with("help: ") && help.len() > 6, "{}", told());
        lines[error].strip_prefix(&begins).unwrap().to_owned()
    }

    /// The same for `--json`.
    #[track_caller]
    pub(crate) fn is_json_refusal(&self, exit: i32, code: &str) {
        assert_eq!(self.code, exit, "{}{}", self.out, self.err);
        let last = self.err.lines().last().unwrap_or_default();
        let error: Value =
            serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {}", self.err));
        assert_eq!(error["error"]["code"], code, "{error}");
        for key in ["message", "help"] {
            let text = error["error"][key].as_str().unwrap();
            assert!(!text.is_empty(), "{error}");
        }
    }
}

/// A running program with open streams, which ends with this.
#[derive(Debug)]
pub(crate) struct Spawned {
    pub(crate) child: Child,
    out: BufReader<ChildStdout>,
}

impl Spawned {
    pub(crate) fn of(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out }
    }

    /// The next line of its stdout, waited for; empty at the end.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Sends a signal.
    pub(crate) fn is_sent(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).unwrap();
        kill(Pid::from_raw(id), signal).unwrap();
    }

    /// Sends a signal, reads to the end: exit code, the rest of stdout, stderr.
    pub(crate) fn gets(mut self, signal: Signal) -> Ran {
        self.is_sent(signal);
        self.rest()
    }

    /// Reads to the end: exit code, the rest of stdout, stderr.
    pub(crate) fn rest(&mut self) -> Ran {
        let (mut out, mut err) = (String::new(), String::new());
        self.out.read_to_string(&mut out).unwrap();
        self.child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut err)
            .unwrap();
        let code = code(self.child.wait().unwrap());
        Ran { code, out, err }
    }
}

impl Drop for Spawned {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A node without a user interface.
#[derive(Debug)]
pub(crate) struct Node {
    /// Whose it is.
    pub(crate) user: User,
    /// Its first line.
    pub(crate) ready: Value,
    child: Child,
    lines: Arc<Mutex<Vec<Value>>>,
    errors: Arc<Mutex<String>>,
}

impl std::ops::Deref for Node {
    type Target = User;

    fn deref(&self) -> &User {
        &self.user
    }
}

impl Node {
    #[track_caller]
    fn start(user: &User, words: &[&str]) -> Self {
        let mut child = user
            .command(words)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (lines, errors) = (Arc::<Mutex<Vec<Value>>>::default(), Arc::default());
        follow(child.stdout.take().unwrap(), &lines, |lines, line| {
            lines.push(serde_json::from_str(line).unwrap_or_else(|_| json!({"not json": line})));
        });
        follow(
            child.stderr.take().unwrap(),
            &errors,
            |errors: &mut String, line| {
                errors.push_str(line);
                errors.push('\n');
            },
        );
        let mut node = Self {
            user: user.clone(),
            ready: Value::Null,
            child,
            lines,
            errors,
        };
        let what = format!("{} is ready: {words:?}", user.name);
        node.ready = eventually(&what, Duration::from_secs(40), || {
            if let Some(first) = lock(&node.lines).first() {
                return Ok(first.clone());
            }
            let ended = node.child.try_wait().unwrap();
            assert!(ended.is_none(), "{what}: {ended:?} {}", node.stderr());
            Err(node.stderr())
        });
        assert_eq!(node.ready["event"], "ready", "{what}");
        node
    }

    /// The ticket that `share` made.
    pub(crate) fn ticket(&self) -> String {
        self.ready["ticket"].as_str().unwrap().to_owned()
    }

    /// This node's member id.
    pub(crate) fn member(&self) -> String {
        self.ready["member"].as_str().unwrap().to_owned()
    }

    /// The process.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap())
    }

    /// Events of this type so far.
    pub(crate) fn events(&self, kind: &str) -> Vec<Value> {
        let lines = lock(&self.lines);
        let fits = lines.iter().filter(|line| line["type"] == kind);
        fits.cloned().collect()
    }

    /// Waits for an event of this type; its data.
    #[track_caller]
    pub(crate) fn event(&self, kind: &str) -> Value {
        eventually(&format!("{} is told {kind}", self.user.name), SOON, || {
            let found = self.events(kind).first().cloned();
            found
                .map(|event| event["data"].clone())
                .ok_or_else(|| format!("{:?}", lock(&self.lines)))
        })
    }

    /// Whether its process still runs, or has been stopped.
    pub(crate) fn lives(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Stops the process where it stands; it goes on by [`Node::goes_on`].
    pub(crate) fn is_stopped(&self) {
        kill(self.pid(), Signal::SIGSTOP).unwrap();
    }

    /// Lets a stopped process go on.
    pub(crate) fn goes_on(&self) {
        kill(self.pid(), Signal::SIGCONT).unwrap();
    }

    /// What it said on stderr so far.
    pub(crate) fn stderr(&self) -> String {
        lock(&self.errors).clone()
    }

    /// SIGKILL: the process gets no chance to say or save anything.
    pub(crate) fn is_killed(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends a signal and returns the exit code.
    #[track_caller]
    pub(crate) fn gets(&mut self, signal: Signal) -> i32 {
        kill(self.pid(), signal).unwrap();
        self.ends()
    }

    /// Waits for the end of the process; its exit code.
    #[track_caller]
    pub(crate) fn ends(&mut self) -> i32 {
        let what = format!("{}'s process ends", self.user.name);
        eventually(&what, SOON, || {
            let status = self.child.try_wait().unwrap();
            status.map(code).ok_or_else(|| lock(&self.errors).clone())
        })
    }

    /// Speaks to the local API as a script would; status and body.
    #[track_caller]
    pub(crate) fn asks(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let socket = self.ready["socket"].as_str().unwrap();
        let mut stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str(body).unwrap_or(Value::Null))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            eprintln_of(&self.user.name, &self.stderr());
        }
    }
}

#[expect(
    clippy::print_stderr,
    reason = "a failed test shows what its nodes said"
)]
fn eprintln_of(name: &str, said: &str) {
    eprintln!("--- stderr of {name}'s node\n{said}");
}

/// The items of a list that the program printed.
pub(crate) fn items(value: &Value) -> &[Value] {
    let list = if value.is_array() {
        value
    } else {
        &value["items"]
    };
    list.as_array().unwrap()
}

/// Every file below a folder.
pub(crate) fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else {
            files.push(path);
        }
    }
    files
}

/// Waits until the pictures of all are the same, and returns it.
#[track_caller]
pub(crate) fn same_screen(users: &[&User]) -> Value {
    eventually("everybody sees the same screen", SOON, || {
        let all: Vec<Value> = users.iter().map(|user| user.json(&["screen"])).collect();
        let same = all.windows(2).all(|pair| pair[0] == pair[1]);
        if same {
            Ok(all[0].clone())
        } else {
            Err(format!("{all:#?}"))
        }
    })
}

/// Runs a command to its end, which comes.
#[track_caller]
pub(crate) fn finish(mut command: Command, stdin: &[u8]) -> Ran {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that ends without reading is no failure.
    drop(child.stdin.take().unwrap().write_all(stdin));
    let out = read_all(child.stdout.take().unwrap());
    let err = read_all(child.stderr.take().unwrap());
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if begun.elapsed() > VERB_MAX {
            child.kill().unwrap();
            child.wait().unwrap();
            let said = (out.join().unwrap(), err.join().unwrap());
            panic!("{command:?} did not end: {said:?}");
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    Ran {
        code: code(status),
        out: out.join().unwrap(),
        err: err.join().unwrap(),
    }
}

/// The exit code as a shell tells it.
pub(crate) fn code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap())
}

fn read_all(mut from: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn follow<T: Send + 'static>(
    from: impl Read + Send + 'static,
    into: &Arc<Mutex<T>>,
    add: impl Fn(&mut T, &str) + Send + 'static,
) {
    let into = Arc::clone(into);
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            add(&mut lock(&into), &line);
        }
    });
}

fn lock<T>(shared: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
