//! The program of the doctor's container, and the image around it: made here, byte by byte, so that no
//! registry is needed and nothing is linked. It writes a word and waits to be killed.

/// What it writes.
pub(super) const WORD: &str = "skep\n";
/// Where it is in the image.
pub(super) const PATH: &str = "probe";

/// Headers of an ELF file with one segment: 64 bytes for the file, 56 for the segment.
const HEADERS: u64 = 64 + 56;
/// Where it is put in memory.
const BASE: u64 = 0x40_0000;
/// `e_machine` of the two architectures (ELF-64 object file format).
const EM_X86_64: u16 = 62;
const EM_AARCH64: u16 = 183;

/// `write(1, word, 5)`, then `pause()` for ever (Linux system calls 1 and 34); then the word.
const X86_64: &[u8] = &[
    0xb8, 0x01, 0x00, 0x00, 0x00, //       mov eax, 1
    0xbf, 0x01, 0x00, 0x00, 0x00, //       mov edi, 1
    0x48, 0x8d, 0x35, 0x10, 0, 0, 0, //    lea rsi, [rip + 16]
    0xba, 0x05, 0x00, 0x00, 0x00, //       mov edx, 5
    0x0f, 0x05, //                         syscall
    0xb8, 0x22, 0x00, 0x00, 0x00, // wait: mov eax, 34
    0x0f, 0x05, //                         syscall
    0xeb, 0xf7, //                         jmp wait
    b's', b'k', b'e', b'p', b'\n',
];

/// The same, waiting by `ppoll(0, 0, 0, 0)` (system calls 64 and 73).
const AARCH64: [u32; 12] = [
    0xd280_0808, //       mov x8, 64
    0xd280_0020, //       mov x0, 1
    0x1000_0141, //       adr x1, 40
    0xd280_00a2, //       mov x2, 5
    0xd400_0001, //       svc 0
    0xd280_0000, // wait: mov x0, 0
    0xd280_0001, //       mov x1, 0
    0xd280_0002, //       mov x2, 0
    0xd280_0003, //       mov x3, 0
    0xd280_0928, //       mov x8, 73
    0xd400_0001, //       svc 0
    0x17ff_fffa, //       b wait
];

/// The program for this machine; none: an architecture that Skep is not made for.
pub(super) fn program() -> Option<Vec<u8>> {
    match std::env::consts::ARCH {
        "x86_64" => Some(elf(EM_X86_64, X86_64)),
        "aarch64" => {
            let mut code: Vec<u8> = AARCH64.iter().flat_map(|word| word.to_le_bytes()).collect();
            code.extend(WORD.as_bytes());
            Some(elf(EM_AARCH64, &code))
        }
        _ => None,
    }
}

/// A static executable of nothing but this code (elf(5)).
fn elf(machine: u16, code: &[u8]) -> Vec<u8> {
    let size = HEADERS + code.len() as u64;
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let mut put = |bytes: &[u8]| file.extend_from_slice(bytes);
    put(&2_u16.to_le_bytes()); // executable
    put(&machine.to_le_bytes());
    put(&1_u32.to_le_bytes()); // version
    put(&(BASE + HEADERS).to_le_bytes()); // entry
    put(&64_u64.to_le_bytes()); // program headers begin here
    put(&0_u64.to_le_bytes()); // no sections
    put(&0_u32.to_le_bytes()); // no flags
    for half in [64_u16, 56, 1, 64, 0, 0] {
        put(&half.to_le_bytes()); // sizes and counts of headers
    }
    put(&1_u32.to_le_bytes()); // a segment to load,
    put(&5_u32.to_le_bytes()); // to be read and executed:
    for word in [0, BASE, BASE, size, size, 0x1000] {
        put(&word.to_le_bytes()); // all of the file, at the base
    }
    put(code);
    file
}

/// A root filesystem with the program alone, as `docker import` takes it.
///
/// # Errors
/// None that can happen in memory.
pub(super) fn root(program: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut header = tar::Header::new_gnu();
    header.set_size(program.len() as u64);
    header.set_mode(0o755);
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_data(&mut header, PATH, program)?;
    archive.into_inner()
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::fs::PermissionsExt;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn the_program_runs_writes_its_word_and_waits() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("probe");
        std::fs::write(&path, program().expect("this machine's")).expect("written");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("executable");
        let mut child = Command::new(&path)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the kernel takes it");
        let mut word = [0; WORD.len()];
        let mut out = child.stdout.take().expect("piped");
        out.read_exact(&mut word).expect("its word");
        assert_eq!(word, WORD.as_bytes());
        assert!(child.try_wait().expect("asked").is_none(), "it waits");
        child.kill().expect("killed");
        child.wait().expect("gone");
    }

    #[test]
    fn both_architectures_end_with_the_word() {
        assert!(X86_64.ends_with(WORD.as_bytes()));
        // adr reaches the word: from the third instruction over ten.
        assert_eq!((AARCH64.len() - 2) * 4, 40);
        let root = root(b"x").expect("a tar");
        assert!(root.len() >= 1024 && root.starts_with(PATH.as_bytes()));
    }
}
