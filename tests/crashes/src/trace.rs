//! What a process did to the file system, as `strace` wrote it down.

use crate::disk::Disk;
use std::collections::HashMap;

/// The calls that change a file system, or make a change durable.
pub const CALLS: &str = "openat,close,write,pwrite64,writev,pwritev,ftruncate,truncate,fallocate,fsync,fdatasync,sync,syncfs,\
                         rename,renameat,renameat2,link,linkat,unlink,unlinkat,mkdir,mkdirat,rmdir,copy_file_range,sendfile";

/// One finished call.
struct Call<'a> {
    name: &'a str,
    /// Its arguments, as written.
    arguments: Vec<&'a str>,
    result: i64,
}

/// An open file.
struct Open {
    path: String,
    /// Nothing: a folder.
    file: Option<usize>,
    offset: usize,
}

/// Plays a trace on a disk, call by call.
pub struct Replay {
    /// The files as the process has left them.
    pub disk: Disk,
    /// Everything below is looked at, the rest is not.
    scope: String,
    open: HashMap<i64, Open>,
    /// Calls that have begun, by thread, with what had changed by then.
    begun: HashMap<String, (String, usize)>,
}

/// What a call did.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing that counts.
    None,
    /// Something on the disk, in words.
    Disk(String),
    /// Text was written to the file of this name, which is no part of the disk.
    Said(String),
}

impl Replay {
    /// `scope` is a folder that is there; `said` are files below it that carry messages.
    pub fn new(scope: &str) -> Self {
        let mut disk = Disk::default();
        disk.durable_folder(scope);
        Self { disk, scope: scope.into(), open: HashMap::new(), begun: HashMap::new() }
    }

    /// Plays one line.
    ///
    /// # Errors
    /// A call that this model does not know, on a file that counts.
    pub fn line(&mut self, line: &str) -> Result<Effect, String> {
        let Some((thread, rest)) = line.trim_start().split_once(' ') else { return Ok(Effect::None) };
        let rest = rest.trim_start();
        let started = self.disk.clock();
        if let Some(begin) = rest.strip_suffix("<unfinished ...>") {
            self.begun.insert(thread.into(), (begin.trim_end().into(), started));
            return Ok(Effect::None);
        }
        let (text, started) = match rest.strip_prefix("<... ").and_then(|rest| rest.split_once(" resumed>")) {
            Some((_, end)) => match self.begun.remove(thread) {
                Some((begin, started)) => (format!("{begin}{end}"), started),
                None => return Ok(Effect::None),
            },
            None => (rest.to_owned(), started),
        };
        match parse(&text) {
            Some(call) if call.result >= 0 => self.apply(&call, started),
            _ => Ok(Effect::None),
        }
    }

    fn counts(&self, path: &str) -> bool {
        path.strip_prefix(&self.scope).is_some_and(|rest| rest.starts_with('/') || rest.is_empty())
    }

    fn apply(&mut self, call: &Call<'_>, started: usize) -> Result<Effect, String> {
        let path = |at: usize| call.arguments.get(at).and_then(|text| unquote(text)).map(|bytes| text_of(&bytes));
        let number = |at: usize| call.arguments.get(at).and_then(|text| text.parse::<i64>().ok()).unwrap_or(-1);
        let done = |what: String| Ok(Effect::Disk(what));
        match call.name {
            "openat" => {
                let (path, flags) = (path(1).unwrap_or_default(), call.arguments.get(2).copied().unwrap_or_default());
                if !self.counts(&path) {
                    return Ok(Effect::None);
                }
                let made = flags.contains("O_CREAT") && self.disk.file(&path).is_none();
                let file = if flags.contains("O_CREAT") || self.disk.file(&path).is_some() {
                    Some(self.disk.open(&path, flags.contains("O_TRUNC")))
                } else {
                    None
                };
                let what = format!("create {path}");
                self.open.insert(call.result, Open { path, file, offset: 0 });
                return if made { done(what) } else { Ok(Effect::None) };
            }
            "close" => drop(self.open.remove(&number(0))),
            "write" | "pwrite64" => {
                let Some(open) = self.open.get_mut(&number(0)) else { return Ok(Effect::None) };
                let bytes = call.arguments.get(1).and_then(|text| unquote(text)).ok_or("a write without its bytes")?;
                let bytes = bytes.get(..call.result as usize).ok_or("a write whose bytes were cut short")?;
                if open.path.ends_with(".said") {
                    return Ok(Effect::Said(text_of(bytes)));
                }
                let Some(file) = open.file else { return Ok(Effect::None) };
                let offset = match call.name {
                    "write" => {
                        open.offset += bytes.len();
                        open.offset - bytes.len()
                    }
                    _ => number(3) as usize,
                };
                self.disk.write(file, offset, bytes);
                return done(format!("write {} bytes to {}", bytes.len(), open.path));
            }
            "ftruncate" => {
                if let Some(Open { file: Some(file), path, .. }) = self.open.get(&number(0)) {
                    self.disk.resize(*file, number(1) as usize);
                    return done(format!("cut {path}"));
                }
            }
            "fsync" | "fdatasync" => {
                if let Some(open) = self.open.get(&number(0)) {
                    match open.file {
                        Some(file) => self.disk.sync_file(file),
                        None => self.disk.sync_folder(&open.path, started),
                    }
                    return done(format!("sync {}", open.path));
                }
            }
            "mkdir" if self.counts(&path(0).unwrap_or_default()) => {
                let path = path(0).unwrap_or_default();
                self.disk.make_folder(&path);
                return done(format!("make folder {path}"));
            }
            "unlink" if self.counts(&path(0).unwrap_or_default()) => {
                let path = path(0).unwrap_or_default();
                self.disk.remove(&path);
                return done(format!("remove {path}"));
            }
            "unlinkat" if self.counts(&path(1).unwrap_or_default()) => {
                let path = path(1).unwrap_or_default();
                self.disk.remove(&path);
                return done(format!("remove {path}"));
            }
            "link" | "rename" | "linkat" | "renameat" | "renameat2" => {
                let (from, to) = if call.name.len() <= 6 && !call.name.ends_with("at") {
                    (path(0), path(1))
                } else {
                    (path(1), path(3))
                };
                let (from, to) = (from.unwrap_or_default(), to.unwrap_or_default());
                if self.counts(&to) || self.counts(&from) {
                    match call.name.starts_with("link") {
                        true => self.disk.link(&from, &to),
                        false => self.disk.rename(&from, &to),
                    }
                    return done(format!("{} {from} to {to}", call.name));
                }
            }
            other => {
                let open = self.open.contains_key(&number(0));
                let named = (0..call.arguments.len()).any(|at| path(at).is_some_and(|path| self.counts(&path)));
                if open || named {
                    return Err(format!("this model has no `{other}`"));
                }
            }
        }
        Ok(Effect::None)
    }
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// `name(a, "b", c) = 3`
fn parse(text: &str) -> Option<Call<'_>> {
    let (name, rest) = text.split_once('(')?;
    // The result stands behind the last closing parenthesis that `=` follows.
    let (inside, result) = rest.rsplit_once(" = ")?;
    let inside = inside.trim_end().strip_suffix(')')?;
    let result = result.split([' ', '<']).next()?.parse().ok()?;
    let mut arguments = Vec::new();
    let (mut start, mut quoted) = (0, false);
    for (at, byte) in inside.bytes().enumerate() {
        match byte {
            // With `-xx` every byte is written as \xNN, so a quote is a quote.
            b'"' => quoted = !quoted,
            b',' if !quoted => {
                arguments.push(inside[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    arguments.push(inside[start..].trim());
    Some(Call { name: name.trim(), arguments, result })
}

/// `"\x61\x62"` as bytes.
fn unquote(text: &str) -> Option<Vec<u8>> {
    let hex = text.strip_prefix('"')?.strip_suffix('"')?;
    if hex.is_empty() {
        return Some(Vec::new());
    }
    hex.strip_prefix("\\x")?.split("\\x").map(|byte| u8::from_str_radix(byte, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> String {
        text.bytes().map(|byte| format!("\\x{byte:02x}")).collect()
    }

    #[test]
    fn lines_are_read_also_when_threads_interrupt_each_other() {
        let mut replay = Replay::new("/r");
        let lines = [
            format!("7 openat(AT_FDCWD, \"{}\", O_WRONLY|O_CREAT|O_EXCL|O_CLOEXEC, 0666) = 9", hex("/r/a#1")),
            format!("7 write(9, \"{}\", 2 <unfinished ...>", hex("xy")),
            "8 fsync(5) = 0".into(),
            "7 <... write resumed>)    = 2".into(),
            "7 fsync(9)   = 0".into(),
            "7 close(9) = 0".into(),
            format!("7 linkat(AT_FDCWD, \"{}\", AT_FDCWD, \"{}\", 0) = 0", hex("/r/a#1"), hex("/r/a")),
            format!("7 unlink(\"{}\") = -1 ENOENT (No such file or directory)", hex("/r/a")),
        ];
        for line in &lines {
            replay.line(line).unwrap();
        }
        let cut = |keeps: bool| {
            let mut luck = crate::disk::Luck { name: &mut || keeps, bytes: &mut |_| 0 };
            replay.disk.after_power_cut("/r", &mut luck)
        };
        assert_eq!(&cut(true)["a"].bytes[..], b"xy");
        assert!(cut(false).is_empty(), "its folder was not synced");
    }
}
