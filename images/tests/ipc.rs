//! Bad images of semaphores, queues and limits: each is told by file, entry and field.

#[allow(dead_code, reason = "each test program uses some of it")]
mod common;

use armrest_images::container::{Writer, edit};
use armrest_images::proto::{IpcDesc, IpcMsg, IpcMsgQueue, IpcSem, IpcVar};
use armrest_images::{Class, MemDir, load, magic};
use common::sample;

const SEM: &str = "ipcns-sem-9.img";
const MSG: &str = "ipcns-msg-9.img";

fn refused(name: &str, bytes: Vec<u8>) -> (Class, String) {
    let mut dir: MemDir = sample("shm300");
    dir.put(name, bytes);
    let e = load(&dir).map(|_| ()).expect_err("loaded although damaged");
    (e.class(), e.to_string())
}

fn desc() -> IpcDesc {
    IpcDesc {
        key: Some(0),
        uid: Some(0),
        gid: Some(0),
        cuid: Some(0),
        cgid: Some(0),
        mode: Some(0o600),
        id: Some(4),
    }
}

fn set(desc: IpcDesc, nsems: u32, values: &[u8]) -> (Class, String) {
    let e = IpcSem {
        desc: Some(desc),
        nsems: Some(nsems),
    };
    refused(
        SEM,
        Writer::new(magic::IPC_SEM).entry(&e).raw(values).finish(),
    )
}

fn queue(qnum: u32, messages: &[(u64, u32, usize)]) -> (Class, String) {
    let e = IpcMsgQueue {
        desc: Some(desc()),
        qbytes: Some(16384),
        qnum: Some(qnum),
    };
    let all = messages.iter().fold(
        Writer::new(magic::IPC_MSG).entry(&e),
        |w, (mtype, msize, bytes)| {
            let m = IpcMsg {
                mtype: Some(*mtype),
                msize: Some(*msize),
            };
            w.entry(&m).raw(&vec![7; *bytes])
        },
    );
    refused(MSG, all.finish())
}

#[test]
fn impossible_sets() {
    let (class, text) = set(desc(), 0, &[]);
    assert_eq!(class, Class::BadField, "{text}");
    assert!(text.contains("nsems"), "{text}");
    // Values that are not there: two of four thousand million, one beyond the padding.
    assert_eq!(set(desc(), u32::MAX, &[0; 8]).0, Class::Damaged);
    assert_eq!(set(desc(), 5, &[0; 8]).0, Class::Damaged);
    let (class, text) = set(desc(), 2, &[0, 0, 0, 0x80, 0, 0, 0, 0]);
    assert_eq!(class, Class::BadField, "{text}");
    assert!(text.contains("0x8000"), "{text}");
    let mode = IpcDesc {
        mode: Some(0o1600),
        ..desc()
    };
    assert_eq!(set(mode, 1, &[0; 8]).0, Class::UnknownFlag);
    let id = IpcDesc {
        id: Some(1 << 31),
        ..desc()
    };
    assert_eq!(set(id, 1, &[0; 8]).0, Class::BadField);
    let lost = IpcDesc {
        cuid: None,
        ..desc()
    };
    assert!(set(lost, 1, &[0; 8]).1.contains("cuid"));
}

#[test]
fn impossible_queues() {
    // A type is a positive number of 31 bits.
    for kind in [0, 1 << 31, u64::MAX] {
        let (class, text) = queue(1, &[(kind, 3, 8)]);
        assert_eq!(class, Class::BadField, "{text}");
        assert!(text.contains("messages[0].mtype"), "{text}");
    }
    assert_eq!(queue(1, &[(1, 9, 8)]).0, Class::Damaged);
    assert_eq!(queue(1, &[(1, u32::MAX, 8)]).0, Class::Damaged);
    assert_eq!(queue(u32::MAX, &[(1, 8, 8)]).0, Class::Damaged);
}

#[test]
fn an_object_that_is_there_twice() {
    let old = sample("shm300").files[MSG].clone();
    let twice = [&old[..], &old[8..]].concat();
    assert_eq!(refused(MSG, twice).0, Class::BadReference);
    let old = sample("shm300").files[SEM].clone();
    let twice = [&old[..], &old[8..]].concat();
    assert_eq!(refused(SEM, twice).0, Class::BadReference);
}

#[test]
fn limits_that_are_not_all_there() {
    let name = "ipcns-var-9.img";
    let old = sample("shm300").files[name].clone();
    let new = edit::<IpcVar>(name, &old, magic::IPC_VAR, |e| {
        e[0].sem_ctls.truncate(3);
    })
    .unwrap();
    let (class, text) = refused(name, new);
    assert_eq!(class, Class::BadCount, "{text}");
}

#[test]
fn objects_of_a_namespace_of_nobody_are_named() {
    let mut dir = sample("shm300");
    let sets = dir.files[SEM].clone();
    dir.put("ipcns-sem-10.img", sets.to_vec());
    let cp = load(&dir).unwrap();
    assert_eq!(cp.others, ["an ipc namespace of nobody: ipcns-sem-10.img"]);
}
