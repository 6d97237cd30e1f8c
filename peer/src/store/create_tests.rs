//! There is one slot of a content, whoever makes it and whoever looks for it.

use super::{
    tests::{CHUNK, sample},
    *,
};
use anchorage_manifest::Name;

/// What a watcher was told.
#[derive(Default)]
struct Told(Mutex<Vec<u32>>);

impl slot::Watcher for Told {
    fn marked(&self, _content: ContentId, chunks: &[u32], _watchers: usize) {
        self.0.lock().expect("not poisoned").extend(chunks);
    }

    fn grew(&self, _content: ContentId) {}
}

#[test]
fn whoever_looks_for_a_slot_while_it_is_made_finds_the_one_that_is_made() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let store = Store::open(directory.path())?;
    for chunks in 1..200 {
        let (_, content) = sample(chunks);
        let id = content.id();
        std::thread::scope(|scope| {
            let looking = scope.spawn(|| {
                loop {
                    store.refresh(id);
                    if let Some(found) = store.slot(id) {
                        return found;
                    }
                }
            });
            let made = store.create(&content, &Place::inside())?;
            let found = looking.join().expect("it finds one");
            assert!(Arc::ptr_eq(&made, &found), "{chunks} chunks");
            anyhow::Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn who_watched_a_slot_is_told_by_the_one_in_its_place() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let (bytes, content) = sample(2);
    let path = directory.path().join("file");
    fs::write(&path, &bytes)?;
    let store = Store::open(&directory.path().join("store"))?;
    let name: Name = "file".parse()?;
    let old = store.create(&content, &Place::of_complete(&path, name.clone())?)?;
    let told: Arc<Told> = Arc::default();
    let watcher: Arc<dyn slot::Watcher> = told.clone();
    old.watch(Arc::downgrade(&watcher));
    // The file is gone, and fetched again.
    fs::remove_file(&path)?;
    let place = Place::of_part(&directory.path().join("file.part"), name);
    let slot = store.create(&content, &place)?;
    assert!(!Arc::ptr_eq(&slot, &old));
    assert!(Arc::ptr_eq(&slot, &store.create(&content, &place)?));
    slot.store(1, &bytes[CHUNK..])?;
    // That is gone as well: nothing is to be written to what nobody sees.
    fs::remove_file(slot.path())?;
    let slot = store.create(&content, &place)?;
    slot.reset();
    slot.store(0, &bytes[..CHUNK])?;
    assert_eq!(fs::read(slot.path())?[..CHUNK], bytes[..CHUNK]);
    assert_eq!(*told.0.lock().expect("not poisoned"), [1, 0]);
    Ok(())
}
