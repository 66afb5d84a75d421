//! The layers of a bundle into a folder: contents by number, and an index that knows their names. No name of
//! the site becomes one on the disk. Blocks on the disk.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Seek as _, SeekFrom, Write as _};
use std::path::{Component, Path};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use skep_identity::digest::Sha256;
use skep_ingress::files::{self, Index, Site};
use tar::{Entry, EntryType};

use crate::images::Digest;

/// Files of one site.
const MAX_FILES: usize = 100_000;
/// All contents of one site, unpacked.
const MAX_BYTES: u64 = 8 << 30;
/// Longest path.
const MAX_PATH_BYTES: usize = 1_024;
/// How far a link may lead on.
const MAX_HOPS: usize = 8;
/// What is smaller is sent as it is.
const MIN_GZIP_BYTES: u64 = 1 << 10;
/// What is larger would take an agent too long.
const MAX_GZIP_BYTES: u64 = 16 << 20;
/// Endings of names whose contents shrink.
const SHRINKS: [&str; 16] = [
    "html",
    "htm",
    "css",
    "js",
    "mjs",
    "json",
    "map",
    "svg",
    "txt",
    "xml",
    "wasm",
    "md",
    "csv",
    "ico",
    "webmanifest",
    "ttf",
];
/// How much is read at once.
const PIECE_BYTES: usize = 64 << 10;

/// A bundle cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The image's label.
    #[error("its label cannot be read: {0}")]
    Label(String),
    /// A layer.
    #[error("a layer cannot be read")]
    Layer(#[source] io::Error),
    /// This node's disk.
    #[error("it cannot be written")]
    Disk(#[from] io::Error),
    /// Too many files.
    #[error("it has more than {MAX_FILES} files")]
    Files,
    /// Too much.
    #[error("it has more than {} GiB", MAX_BYTES >> 30)]
    Bytes,
}

impl Error {
    /// Whether this node's disk has no room.
    pub(crate) fn is_full(&self) -> bool {
        matches!(self, Self::Disk(error) if crate::images::is_full(error))
    }
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Unpacked {
    /// What is in the folder.
    pub(crate) index: Index,
    /// Names that are not in it, and why.
    pub(crate) left_out: Vec<(String, &'static str)>,
}

/// Unpacks layers, lowest first, into the empty folder `into`.
///
/// # Errors
/// A layer or the disk, or more than the limits allow.
pub(crate) fn unpack(layers: Vec<File>, site: Site, into: &Path) -> Result<Unpacked, Error> {
    let mut tree = Tree {
        into,
        files: BTreeMap::new(),
        links: BTreeMap::new(),
        left_out: Vec::new(),
        contents: 0,
        bytes: 0,
    };
    for layer in layers {
        tree.add_layer(layer)?;
    }
    tree.follow_links()?;
    tree.finish(site)
}

struct Tree<'a> {
    into: &'a Path,
    files: BTreeMap<String, files::File>,
    /// Where links lead, by their own path.
    links: BTreeMap<String, String>,
    left_out: Vec<(String, &'static str)>,
    contents: u32,
    bytes: u64,
}

/// What a name in a layer means.
enum Name {
    Path(String),
    /// What lower layers have of this goes.
    Gone(String),
    LeftOut(&'static str),
}

impl Tree<'_> {
    fn add_layer(&mut self, mut layer: File) -> Result<(), Error> {
        let mut magic = [0; 2];
        let is_gzip = layer.read_exact(&mut magic).is_ok() && magic == [0x1f, 0x8b];
        layer.seek(SeekFrom::Start(0)).map_err(Error::Layer)?;
        let layer = BufReader::with_capacity(PIECE_BYTES, layer);
        match is_gzip {
            true => self.add_tar(GzDecoder::new(layer)),
            false => self.add_tar(layer),
        }
    }

    fn add_tar(&mut self, layer: impl Read) -> Result<(), Error> {
        let mut archive = tar::Archive::new(layer);
        for entry in archive.entries().map_err(Error::Layer)? {
            self.add(entry.map_err(Error::Layer)?)?;
        }
        // To the very end: only there gzip tells whether all of it came.
        io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(Error::Layer)?;
        Ok(())
    }

    fn add<R: Read>(&mut self, mut entry: Entry<'_, R>) -> Result<(), Error> {
        let path = entry.path().map_err(Error::Layer)?;
        let path = match name(&path) {
            Name::Path(path) if !path.is_empty() => path,
            // The root itself.
            Name::Path(_) => return Ok(()),
            Name::Gone(path) => {
                self.remove(&path);
                return Ok(());
            }
            Name::LeftOut(why) => {
                let shown = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
                self.left_out.push((shown, why));
                return Ok(());
            }
        };
        match entry.header().entry_type() {
            EntryType::Regular | EntryType::Continuous => {
                self.remove(&path);
                let file = self.write(&path, &mut entry)?;
                self.put(path, file)
            }
            EntryType::Link => {
                let target = entry.link_name().map_err(Error::Layer)?.unwrap_or_default();
                let file = match name(&target) {
                    Name::Path(target) => self.files.get(&target).cloned(),
                    _ => None,
                };
                self.remove(&path);
                match file {
                    Some(file) => self.put(path, file),
                    None => {
                        self.left_out.push((path, "leads to no file"));
                        Ok(())
                    }
                }
            }
            EntryType::Symlink => {
                let target = entry.link_name().map_err(Error::Layer)?.unwrap_or_default();
                self.remove(&path);
                let parent = Path::new(&path).parent().unwrap_or(Path::new(""));
                match leads_to(parent, &target) {
                    Some(target) => drop(self.links.insert(path, target)),
                    None => self.left_out.push((path, "leads out of the site")),
                }
                Ok(())
            }
            EntryType::Directory | EntryType::XGlobalHeader => Ok(()),
            _ => {
                self.left_out.push((path, "is not a file"));
                Ok(())
            }
        }
    }

    fn put(&mut self, path: String, file: files::File) -> Result<(), Error> {
        self.files.insert(path, file);
        match self.files.len() > MAX_FILES {
            true => Err(Error::Files),
            false => Ok(()),
        }
    }

    /// What a lower layer has at a path, and below it.
    fn remove(&mut self, path: &str) {
        let below = format!("{path}/");
        let is_other = |it: &String| it != path && !it.starts_with(&below);
        // A look is cheap, a walk through all of a large site for each of its files is not.
        let has_any = |known: Option<&String>| known.is_some_and(|it| !is_other(it));
        let from = path.to_owned();
        if has_any(self.files.range(from.clone()..).next().map(|(it, _)| it)) {
            self.files.retain(|it, _| is_other(it));
        }
        if has_any(self.links.range(from..).next().map(|(it, _)| it)) {
            self.links.retain(|it, _| is_other(it));
        }
    }

    /// Contents under the next number, and smaller ones beside them where they shrink.
    fn write(&mut self, path: &str, from: &mut impl Read) -> Result<files::File, Error> {
        let content = self.contents;
        self.contents += 1;
        let place = self.into.join(files::content_name(content));
        let smaller = self.into.join(files::gzip_name(content));
        let mut to = BufWriter::new(File::create(&place)?);
        let (mut sum, mut size) = (Sha256::default(), 0);
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let read = match from.read(&mut piece) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Error::Layer(error)),
            };
            size += read as u64;
            self.bytes += read as u64;
            if self.bytes > MAX_BYTES {
                return Err(Error::Bytes);
            }
            sum.update(&piece[..read]);
            to.write_all(&piece[..read])?;
        }
        to.flush()?;
        Ok(files::File {
            content,
            size,
            sha256: Digest::from_sum(sum.finish()).hex(),
            gzip: shrunk(path, (&place, &smaller), size)?,
        })
    }

    /// Links become files of their own: a link to a folder, all that is in it.
    fn follow_links(&mut self) -> Result<(), Error> {
        let links = std::mem::take(&mut self.links);
        for (path, first) in &links {
            let mut target = first;
            for _ in 0..MAX_HOPS {
                match links.get(target) {
                    Some(next) => target = next,
                    None => break,
                }
            }
            if let Some(file) = self.files.get(target).cloned() {
                self.put(path.clone(), file)?;
                continue;
            }
            let below = match target.is_empty() {
                true => String::new(),
                false => format!("{target}/"),
            };
            let inside = self.files.range(below.clone()..);
            let inside = inside.take_while(|(it, _)| it.starts_with(&below));
            let inside: Vec<_> = inside
                .map(|(it, file)| (format!("{path}/{}", &it[below.len()..]), file.clone()))
                .take(MAX_FILES)
                .collect();
            if inside.is_empty() {
                self.left_out.push((path.clone(), "leads to no file"));
            }
            for (path, file) in inside {
                self.put(path, file)?;
            }
        }
        Ok(())
    }

    fn finish(self, site: Site) -> Result<Unpacked, Error> {
        let used: BTreeSet<u32> = self.files.values().map(|file| file.content).collect();
        for content in (0..self.contents).filter(|it| !used.contains(it)) {
            fs::remove_file(self.into.join(files::content_name(content)))?;
            match fs::remove_file(self.into.join(files::gzip_name(content))) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        }
        let index = Index {
            format: files::FORMAT,
            site,
            files: self.files,
        };
        let text = serde_json::to_vec(&index).expect("plain data");
        fs::write(self.into.join(files::INDEX), text)?;
        // One call for thousands of files: the folder gets its name only when all of it would survive a crash.
        let folder = File::open(self.into)?;
        rustix::fs::syncfs(&folder).map_err(io::Error::from)?;
        Ok(Unpacked {
            index,
            left_out: self.left_out,
        })
    }
}

/// Contents compressed, beside the others; their size, where that is worth it.
fn shrunk(path: &str, (place, smaller): (&Path, &Path), size: u64) -> Result<Option<u64>, Error> {
    let ending = path.rsplit_once('.').map(|(_, ending)| ending);
    let ending = ending.unwrap_or_default().to_ascii_lowercase();
    if !SHRINKS.contains(&ending.as_str()) || !(MIN_GZIP_BYTES..=MAX_GZIP_BYTES).contains(&size) {
        return Ok(None);
    }
    let mut to = GzEncoder::new(File::create(smaller)?, Compression::default());
    io::copy(&mut File::open(place)?, &mut to)?;
    let gzip = to.finish()?.metadata()?.len();
    if gzip < size - size / 10 {
        return Ok(Some(gzip));
    }
    fs::remove_file(smaller)?;
    Ok(None)
}

/// What an entry's name means. Hidden files are not for visitors, but for what the web has agreed on.
fn name(path: &Path) -> Name {
    let mut parts = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(part) => match part.to_str() {
                Some(part) => parts.push(part),
                None => return Name::LeftOut("has a name that is not UTF-8"),
            },
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Name::LeftOut("leads out of the site");
            }
        }
    }
    let joined = parts.join("/");
    if joined.len() > MAX_PATH_BYTES {
        return Name::LeftOut("has a name that is too long");
    }
    if let Some((last, parents)) = parts.split_last()
        && let Some(gone) = last.strip_prefix(".wh.")
    {
        let gone = match gone {
            ".wh..opq" => parents.join("/"),
            gone => [parents, &[gone]].concat().join("/"),
        };
        return Name::Gone(gone);
    }
    let is_hidden = |(place, part): (usize, &&str)| {
        part.starts_with('.') && !(place == 0 && **part == *".well-known")
    };
    match parts.iter().enumerate().any(is_hidden) {
        true => Name::LeftOut("is hidden"),
        false => Name::Path(joined),
    }
}

/// Where a link leads, by its text alone; none: out of the site.
fn leads_to(parent: &Path, target: &Path) -> Option<String> {
    let mut place = match target.is_absolute() {
        true => Vec::new(),
        false => parent
            .to_str()?
            .split('/')
            .filter(|it| !it.is_empty())
            .collect(),
    };
    for part in target.components() {
        match part {
            Component::Normal(part) => place.push(part.to_str()?),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir if place.pop().is_some() => {}
            _ => return None,
        }
    }
    Some(place.join("/"))
}

#[cfg(test)]
mod tests;
