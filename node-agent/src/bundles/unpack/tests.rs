use super::super::testing::{add, file, layer};
use super::*;

fn names(index: &Index) -> Vec<&str> {
    index.files.keys().map(String::as_str).collect()
}

fn run(layers: Vec<File>) -> (tempfile::TempDir, Result<Unpacked, Error>) {
    let folder = tempfile::tempdir().expect("a folder");
    let unpacked = unpack(layers, Site::default(), folder.path());
    (folder, unpacked)
}

fn text_of(folder: &Path, index: &Index, name: &str) -> String {
    let place = folder.join(index.files[name].content.to_string());
    fs::read_to_string(place).expect("contents")
}

#[test]
fn an_upper_layer_replaces_and_removes() {
    let lower = layer(|it| {
        file(it, "index.html", b"old");
        file(it, "a/one.txt", b"1");
        file(it, "a/two.txt", b"2");
        file(it, "b/three.txt", b"3");
        file(it, "c", b"a file");
    });
    let upper = layer(|it| {
        file(it, "./index.html", b"new");
        file(it, "a/.wh.one.txt", b"");
        file(it, "b/.wh..wh..opq", b"");
        file(it, "b/four.txt", b"4");
        file(it, "c/now-a-folder.txt", b"5");
    });
    let (folder, unpacked) = run(vec![lower, upper]);
    let index = unpacked.expect("unpacked").index;
    let expected = [
        "a/two.txt",
        "b/four.txt",
        "c/now-a-folder.txt",
        "index.html",
    ];
    // A file that a folder replaces is told by its own whiteout.
    assert_eq!(
        names(&index)
            .into_iter()
            .filter(|it| *it != "c")
            .collect::<Vec<_>>(),
        expected
    );
    assert_eq!(text_of(folder.path(), &index, "index.html"), "new");
    // What nobody can ask for takes no room.
    let kept = fs::read_dir(folder.path()).expect("a folder").count();
    assert_eq!(kept, index.files.len() + 1);
}

#[test]
fn what_is_hidden_or_leads_out_is_left_out_and_told() {
    let made = layer(|it| {
        file(it, "index.html", b"x");
        file(it, ".env", b"SECRET=1");
        file(it, ".git/config", b"x");
        file(it, "a/.htpasswd", b"x");
        file(it, ".well-known/security.txt", b"x");
        file(it, "../up", b"x");
        file(it, "a/../../up", b"x");
        file(it, "/etc/passwd", b"x");
        add(it, "out", (EntryType::Symlink, "../../etc/shadow"), b"");
        add(it, "fifo", (EntryType::Fifo, ""), b"");
        add(it, "gone", (EntryType::Symlink, "nothing"), b"");
    });
    let (_folder, unpacked) = run(vec![made]);
    let unpacked = unpacked.expect("unpacked");
    let expected = [".well-known/security.txt", "etc/passwd", "index.html"];
    assert_eq!(names(&unpacked.index), expected);
    let left_out: Vec<&str> = unpacked
        .left_out
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    let expected = [
        ".env",
        ".git/config",
        "a/.htpasswd",
        "../up",
        "a/../../up",
        "out",
        "fifo",
        "gone",
    ];
    assert_eq!(left_out, expected);
}

#[test]
fn links_are_files_of_their_own() {
    let made = layer(|it| {
        add(it, "latest", (EntryType::Symlink, "v2"), b"");
        add(
            it,
            "docs/home.html",
            (EntryType::Symlink, "../index.html"),
            b"",
        );
        add(it, "one", (EntryType::Symlink, "two"), b"");
        add(it, "two", (EntryType::Symlink, "one"), b"");
        file(it, "index.html", b"home");
        file(it, "v2/a.txt", b"a");
        add(it, "hard", (EntryType::Link, "index.html"), b"");
    });
    let (folder, unpacked) = run(vec![made]);
    let index = unpacked.expect("unpacked").index;
    let expected = [
        "docs/home.html",
        "hard",
        "index.html",
        "latest/a.txt",
        "v2/a.txt",
    ];
    assert_eq!(names(&index), expected);
    for name in ["docs/home.html", "hard"] {
        assert_eq!(text_of(folder.path(), &index, name), "home");
    }
}

#[test]
fn what_shrinks_is_kept_small_beside_itself() {
    let long = "body { color: red }\n".repeat(200);
    // Whatever it is called, it does not shrink.
    let noise: Vec<u8> = (0..4_096_u32)
        .flat_map(|it| skep_identity::digest::sha256(&it.to_le_bytes())[..2].to_vec())
        .collect();
    let made = layer(|it| {
        file(it, "long.css", long.as_bytes());
        file(it, "short.css", b"a{}");
        file(it, "noise.js", &noise);
        file(it, "long.png", long.as_bytes());
    });
    let (folder, unpacked) = run(vec![made]);
    let index = unpacked.expect("unpacked").index;
    let small: Vec<&str> = index
        .files
        .iter()
        .filter_map(|(name, file)| file.gzip.map(|_| name.as_str()))
        .collect();
    assert_eq!(small, ["long.css"]);
    let css = &index.files["long.css"];
    let place = folder.path().join(format!("{}.gz", css.content));
    let mut text = String::new();
    let packed = File::open(&place).expect("there");
    assert_eq!(
        packed.metadata().expect("there").len(),
        css.gzip.expect("small")
    );
    GzDecoder::new(packed)
        .read_to_string(&mut text)
        .expect("gzip");
    assert_eq!(text, long);
    assert_eq!(
        css.sha256,
        skep_identity::digest::sha256_hex(long.as_bytes())
    );
    let read = Index::read(folder.path()).expect("as it was written");
    assert_eq!(read, index);
}

#[test]
fn a_layer_that_breaks_off_is_refused() {
    let made = layer(|it| file(it, "a.txt", &[7; 100_000]));
    let length = made.metadata().expect("a file").len();
    made.set_len(length - 20).expect("shorter");
    let (_folder, unpacked) = run(vec![made]);
    assert!(matches!(unpacked, Err(Error::Layer(_))), "{unpacked:?}");
    let mut nonsense = tempfile::tempfile().expect("a file");
    nonsense.write_all(&[1; 2_000]).expect("written");
    let (_folder, unpacked) = run(vec![nonsense]);
    assert!(matches!(unpacked, Err(Error::Layer(_))), "{unpacked:?}");
}
