//! The keys of the process object.

#[cfg(test)]
use super::describe::*;
use super::keys;

keys! {
    /// A process at the time of the event.
    Process {
        Pid "pid", U32, Null::Never, "Thread group id, in the pid namespace of netwatch.";
        Tid "tid", U32, Null::Never, "The thread that acted; the thread-group leader if that is not known.";
        Key "key", PROCESS_KEY, Null::Never,
            "`pid@start`, with the start in nanoseconds since boot. Unique although pids are reused. `~` after it: only \
             `/proc` was read, which has the start in units of 10 ms, rounded down.";
        Start "start", TIME, Null::Maybe, "Start time.";
        Comm "comm", Is::Text, Null::Never, "Name of the thread-group leader.";
        Thread "thread", Is::Text, Null::Absent, "Name of the thread that acted, if not the leader.";
        Exe "exe", Is::Text, Null::Maybe,
            "Absolute path of the executable, as `/proc/PID/exe` shows it. For a script, the interpreter.";
        ExeState "exe_state", Is::Word(EXE_STATES), Null::Never,
            "The file of the executable at the time of the event. `unknown` also if its file system does not answer, or \
             if the process has ended and no file has the path: it may have been renamed. `deleted` of such a process \
             only if that was seen before.";
        Args "args", Is::Texts, Null::Never, "Arguments at the time of exec.";
        ArgsTruncated "args_truncated", Is::True, Null::Absent,
            "Arguments are missing in the middle or at the end, because there are too many bytes or too many of them.";
        ArgsBytes "args_bytes", U64, Null::Absent,
            "Length of all arguments in bytes, with the NUL after each, if some are missing and it is known.";
        Uid "uid", U32, Null::Never, "Effective user id.";
        User "user", Is::Text, Null::Maybe, "Name of that user. Null if it has none, or the name service does not answer.";
        Auid "auid", U32, Null::Maybe, "Login user id. Null if it was never set.";
        Ppid "ppid", U32, Null::Never, "Present parent.";
        Cgroup "cgroup", Is::Text, Null::Never, "Path in the cgroup hierarchy.";
        Container "container", Is::Text, Null::Maybe, "Container id.";
        Unit "unit", Is::Text, Null::Maybe, "systemd unit.";
        Kernel "kernel", Is::Boolean, Null::Never, "It is a kernel thread.";
        Signs "signs", Is::Words(SIGNS), Null::Absent, "What is suspicious about the process.";
        Ancestors "ancestors", Is::Objects("ancestor"), Null::Never,
            "The processes that forked it, nearest first.";
    }
}

keys! {
    /// An ancestor of a process.
    Ancestor {
        Pid "pid", U32, Null::Never, "Thread group id.";
        Key "key", PROCESS_KEY, Null::Never, "As of the process object.";
        Comm "comm", Is::Text, Null::Never, "Name of the thread-group leader.";
        Exe "exe", Is::Text, Null::Maybe, "Path of the executable.";
    }
}
