//! Recorded terminals: what real programs printed, read from `tests/recordings`. How each was made stands in
//! `record.py` there.

use std::path::{Path, PathBuf};

/// What happened on a recorded terminal, in order.
pub(crate) enum Happened {
    /// The program printed this.
    Printed(Vec<u8>),
    /// The terminal got so many columns and rows.
    Resized(u16, u16),
}

/// One recording.
pub(crate) struct Recording {
    /// Columns and rows at the beginning.
    pub(crate) size: (u16, u16),
    /// From the first to the last.
    pub(crate) events: Vec<Happened>,
}

impl Recording {
    /// Reads a recording by its name.
    #[track_caller]
    pub(crate) fn read(name: &str) -> Self {
        let path = folder().join(format!("{name}.cast"));
        let text = std::fs::read_to_string(&path);
        let text = text.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut lines = text.lines().map(|line| {
            let line: Result<serde_json::Value, _> = serde_json::from_str(line);
            line.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        });
        let header = lines.next().unwrap();
        let side = |name: &str| u16::try_from(header[name].as_u64().unwrap()).unwrap();
        Self {
            size: (side("width"), side("height")),
            events: lines.map(|line| happened(&line)).collect(),
        }
    }

    /// The names of all that there are.
    pub(crate) fn names() -> Vec<String> {
        let files = std::fs::read_dir(folder()).unwrap();
        let files = files.map(|file| file.unwrap().path());
        let casts = files.filter(|file| file.extension().is_some_and(|kind| kind == "cast"));
        let mut names: Vec<String> = casts
            .map(|file| file.file_stem().unwrap().to_str().unwrap().to_owned())
            .collect();
        names.sort();
        names
    }

    /// The sizes that it gets after the first.
    pub(crate) fn sizes(&self) -> Vec<(u16, u16)> {
        let sizes = self.events.iter().filter_map(|event| match event {
            Happened::Printed(_) => None,
            Happened::Resized(cols, rows) => Some((*cols, *rows)),
        });
        sizes.collect()
    }

    /// All that was printed, sizes left out.
    pub(crate) fn output(&self) -> Vec<u8> {
        let printed = self.events.iter().filter_map(|event| match event {
            Happened::Printed(bytes) => Some(bytes.as_slice()),
            Happened::Resized(..) => None,
        });
        printed.collect::<Vec<_>>().concat()
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings")
}

fn happened(line: &serde_json::Value) -> Happened {
    let data = line[2].as_str().unwrap();
    match line[1].as_str().unwrap() {
        "o" => Happened::Printed(data.as_bytes().to_vec()),
        "h" => Happened::Printed(data_encoding::HEXLOWER.decode(data.as_bytes()).unwrap()),
        "r" => {
            let (cols, rows) = data.split_once('x').unwrap();
            Happened::Resized(cols.parse().unwrap(), rows.parse().unwrap())
        }
        kind => panic!("no event is called {kind:?}"),
    }
}
