//! What the scheduler promises.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

const CHUNK: u32 = 1 << 20;

fn geometry(chunks: u32) -> Geometry {
    Geometry::new(u64::from(chunks) * u64::from(CHUNK), CHUNK).expect("within limits")
}

fn scheduler(chunks: u32) -> Scheduler {
    Scheduler::new(geometry(chunks), Bitmap::empty(chunks), 1)
}

fn ms(ms: u64) -> Time {
    Time(1000 * ms)
}

fn gets(actions: &[Action]) -> Vec<(SourceId, u32)> {
    actions
        .iter()
        .filter_map(|action| {
            if let Action::Get(id, i) = *action {
                Some((id, i))
            } else {
                None
            }
        })
        .collect()
}

/// A source joins that is asked by index only.
fn join(subject: &mut Scheduler, now: Time, id: SourceId, have: &Bitmap, out: &mut Vec<Action>) {
    subject.bitmap(now, id, have);
    subject.handle(now, Event::Exhausted(id), out);
}

/// A source that has nothing yet comes at 0, and is known to send so many chunks a second.
fn join_known(subject: &mut Scheduler, id: SourceId, chunks: f64, out: &mut Vec<Action>) {
    let all = subject.geometry.chunks();
    subject.handle(ms(0), Event::Bitmap(id, Bitmap::empty(all)), out);
    let source = subject.sources.get_mut(&id).expect("joined");
    source.window = u64::from(all) * u64::from(CHUNK);
    source.rate = Some(chunks * f64::from(CHUNK));
}

#[test]
fn a_chunk_is_asked_of_one_source_at_a_time() {
    let mut subject = scheduler(4);
    let mut out = Vec::new();
    join(&mut subject, ms(0), 1, &Bitmap::full(4), &mut out);
    join(&mut subject, ms(0), 2, &Bitmap::full(4), &mut out);
    let asked = gets(&out);
    assert_eq!(asked.len(), 4, "two each");
    let distinct: BTreeSet<u32> = asked.iter().map(|&(_, index)| index).collect();
    assert_eq!(distinct.len(), 4);
}

#[test]
fn the_rarest_comes_first() {
    let mut subject = scheduler(100);
    let mut common = Bitmap::full(100);
    common.remove(70);
    let mut out = Vec::new();
    subject.bitmap(ms(0), 1, &common);
    subject.bitmap(ms(0), 2, &common);
    let mut rare = Bitmap::full(100);
    rare.remove(20);
    subject.handle(ms(0), Event::Bitmap(3, rare), &mut out);
    assert!(gets(&out).contains(&(3, 70)), "{out:?}");
}

#[test]
fn a_source_that_stalls_is_robbed_and_then_dropped() {
    let mut subject = scheduler(2);
    let mut out = Vec::new();
    join(&mut subject, ms(0), 1, &Bitmap::full(2), &mut out);
    assert_eq!(gets(&out).len(), 2);
    out.clear();
    join(&mut subject, ms(10), 2, &Bitmap::full(2), &mut out);
    assert_eq!(out, [], "nothing is asked twice without need");
    let robbed = tick_until(&mut subject, ms(0), ms(800));
    let robbed: Vec<_> = robbed
        .iter()
        .flat_map(|(_, action)| gets(&[*action]))
        .collect();
    assert!(matches!(robbed[..], [(2, _), (2, _)]), "{robbed:?}");
    subject.handle(ms(1001), Event::Stored(2, robbed[0].1), &mut out);
    assert!(out.contains(&Action::Cancel(1, robbed[0].1)), "{out:?}");
    out.clear();
    subject.handle(ms(10_000), Event::Tick, &mut out);
    assert!(out.contains(&Action::Drop(1)), "{out:?}");
}

#[test]
fn who_is_robbed_of_its_last_chunk_is_given_another() {
    let mut subject = scheduler(3);
    let mut out = Vec::new();
    join(&mut subject, ms(0), 1, &Bitmap::full(3), &mut out);
    assert_eq!(gets(&out), [(1, 0), (1, 1)]);
    let mut first_two = Bitmap::full(3);
    first_two.remove(2);
    subject.handle(ms(10), Event::Bitmap(2, first_two), &mut out);
    tick_until(&mut subject, ms(10), ms(800));
    out.clear();
    subject.handle(ms(801), Event::Stored(2, 1), &mut out);
    assert_eq!(out, [Action::Cancel(1, 1)], "it has stalled");
    out.clear();
    subject.handle(ms(802), Event::Stored(2, 0), &mut out);
    assert_eq!(out, [Action::Cancel(1, 0), Action::Get(1, 2)]);
}

#[test]
fn a_liar_is_blamed_and_its_work_given_to_others() {
    let mut subject = scheduler(1);
    let mut out = Vec::new();
    join(&mut subject, ms(0), 1, &Bitmap::full(1), &mut out);
    join(&mut subject, ms(0), 2, &Bitmap::full(1), &mut out);
    let (liar, _) = gets(&out)[0];
    out.clear();
    subject.handle(ms(1), Event::Corrupt(liar, 0), &mut out);
    assert_eq!(out, [Action::Blame(liar, 0), Action::Get(3 - liar, 0)]);
}

#[test]
fn a_source_is_given_more_ahead_as_it_delivers() {
    let mut subject = scheduler(1000);
    let mut out = Vec::new();
    join(&mut subject, ms(0), 1, &Bitmap::full(1000), &mut out);
    assert_eq!(gets(&out).len(), 2);
    let first = gets(&std::mem::take(&mut out));
    for (id, index) in first {
        subject.handle(ms(1), Event::Stored(id, index), &mut out);
    }
    assert_eq!(gets(&out).len(), 3);
    for (id, index) in gets(&std::mem::take(&mut out)) {
        subject.handle(ms(2), Event::Stored(id, index), &mut out);
    }
    assert_eq!(
        gets(&out).len(),
        6,
        "its window has grown to five chunks and a bit"
    );
}

#[test]
fn a_full_source_chooses_while_others_fetch_and_is_asked_by_index_when_exhausted() {
    let mut subject = scheduler(100);
    let mut out = Vec::new();
    let mut partial = Bitmap::empty(100);
    partial.insert(9);
    subject.handle(ms(0), Event::Bitmap(2, partial), &mut out);
    subject.handle(ms(0), Event::Bitmap(1, Bitmap::full(100)), &mut out);
    assert_eq!(out, [Action::Get(2, 9), Action::Any(1), Action::Any(1)]);
    out.clear();
    subject.handle(ms(1), Event::Chosen(1, 40), &mut out);
    subject.handle(ms(1), Event::Stored(1, 40), &mut out);
    assert_eq!(out, [Action::Any(1)], "one more for one that came");
    out.clear();
    subject.handle(ms(2), Event::Exhausted(1), &mut out);
    assert_eq!(
        out,
        [],
        "it is about to choose once more, as far as is known"
    );
    subject.handle(ms(2), Event::Exhausted(1), &mut out);
    assert_eq!(out, [], "what it gave out last will be announced");
    subject.handle(ms(502), Event::Tick, &mut out);
    assert_eq!(out, [Action::Any(1)], "it may have more to give out by now");
    out.clear();
    subject.handle(ms(503), Event::Exhausted(1), &mut out);
    assert!(
        matches!(out[..], [Action::Get(1, _), Action::Get(1, _)]),
        "{out:?}"
    );
}

#[test]
fn an_exhausted_source_that_has_more_to_give_out_after_all_chooses_as_before() {
    let mut subject = scheduler(100);
    let mut out = Vec::new();
    let partial = Bitmap::empty(100);
    subject.handle(ms(0), Event::Bitmap(2, partial), &mut out);
    join(&mut subject, ms(0), 1, &Bitmap::full(100), &mut out);
    subject.handle(ms(1), Event::Exhausted(1), &mut out);
    out.clear();
    subject.handle(ms(502), Event::Tick, &mut out);
    assert_eq!(out, [Action::Any(1)]);
    out.clear();
    subject.handle(ms(503), Event::Chosen(1, 40), &mut out);
    subject.handle(ms(503), Event::Received(1, 1), &mut out);
    assert_eq!(out, [Action::Any(1), Action::Any(1)]);
    out.clear();
    // As far as is known, others are about to have all that it does not choose any more.
    subject.handle(ms(504), Event::Exhausted(1), &mut out);
    subject.handle(ms(504), Event::Exhausted(1), &mut out);
    let others: Vec<u32> = (0..100).filter(|&index| index != 40).collect();
    subject.handle(ms(505), Event::Have(2, others), &mut out);
    let asks_first = |action: &Action| matches!(action, Action::Any(1) | Action::Get(1, _));
    subject.handle(ms(1_005), Event::Tick, &mut out);
    assert!(!out.iter().any(asks_first), "others have the rest: {out:?}");
}

#[test]
fn a_slow_source_is_asked_for_the_next_chunk_when_the_last_is_on_its_way() {
    let mut subject = scheduler(10);
    let mut out = Vec::new();
    let mut partial = Bitmap::full(10);
    partial.remove(9);
    subject.handle(ms(0), Event::Bitmap(1, partial), &mut out);
    let size = u64::from(CHUNK);
    let first = gets(&std::mem::take(&mut out))[0];
    subject.handle(ms(2000), Event::Received(1, size / 2), &mut out);
    subject.handle(ms(2000), Event::Tick, &mut out);
    subject.handle(ms(2200), Event::Received(1, size / 2), &mut out);
    subject.handle(ms(2200), Event::Stored(1, first.1), &mut out);
    subject.handle(ms(2200), Event::Received(1, size / 2), &mut out);
    assert_eq!(out, [], "it takes two seconds for the other half");
    subject.handle(ms(2200), Event::Received(1, size / 2 - 10_000), &mut out);
    assert_eq!(gets(&out).len(), 1);
}

#[test]
fn who_has_what_is_new_is_asked_for_a_part_of_it_unless_much_is_on_offer() {
    let mut subject = scheduler(100);
    let mut out = Vec::new();
    for id in 1..=4 {
        join_known(&mut subject, id, 100.0, &mut out);
    }
    let four: Vec<u32> = (0..4).collect();
    for id in 1..=3 {
        subject.handle(ms(1), Event::Have(id, four.clone()), &mut out);
        let [(asked, index)] = gets(&std::mem::take(&mut out))[..] else {
            panic!("one of four of each of four");
        };
        assert!(asked == id && four.contains(&index));
    }
    subject.handle(ms(2), Event::Have(4, (4..100).collect()), &mut out);
    let (asked, left) = (gets(&out).len(), subject.wanted.offered());
    assert_eq!(asked + left, 97);
    assert_eq!(asked, left / 4, "as much as its part of what is left");
    // Where a round trip takes longer, so much is on its way.
    subject.handle(ms(502), Event::Chosen(4, gets(&out)[0].1), &mut out);
    out.clear();
    subject.handle(ms(502), Event::Received(4, 1), &mut out);
    let more = gets(&out).len();
    assert_eq!(asked + more, 32, "the most that anybody is asked for");
}

#[test]
fn who_fetches_as_well_is_asked_for_more_when_half_of_it_has_come() {
    let mut subject = scheduler(200);
    let mut out = Vec::new();
    for id in 1..=2 {
        // A quarter of a second ahead is 20 chunks.
        join_known(&mut subject, id, 80.0, &mut out);
    }
    subject.handle(ms(1), Event::Have(1, (0..200).collect()), &mut out);
    let mut owed = gets(&std::mem::take(&mut out));
    assert_eq!(owed.len(), 20);
    let mut batches = Vec::new();
    for _ in 0..40 {
        let (id, index) = owed.remove(0);
        subject.handle(ms(2), Event::Stored(id, index), &mut out);
        let more = gets(&std::mem::take(&mut out));
        if !more.is_empty() {
            batches.push((owed.len(), more.len()));
        }
        owed.extend(more);
    }
    let (left, asked): (Vec<usize>, Vec<usize>) = batches.into_iter().unzip();
    assert!(left.iter().all(|&left| left <= 10), "{left:?}");
    assert!(asked.iter().all(|&asked| asked >= 10), "{asked:?}");
    assert!(asked.len() >= 3);
}

/// Ticks whenever it is due; what was done, and when.
fn tick_until(subject: &mut Scheduler, from: Time, until: Time) -> Vec<(Time, Action)> {
    let mut done = Vec::new();
    let mut now = from;
    let mut out = Vec::new();
    while let Some(deadline) = subject.deadline().filter(|&deadline| deadline <= until) {
        now = deadline.max(now);
        subject.handle(now, Event::Tick, &mut out);
        done.extend(out.drain(..).map(|action| (now, action)));
    }
    done
}

#[test]
fn a_stall_is_found_by_the_tick_that_is_due_for_it() {
    let mut subject = scheduler(2);
    let mut out = Vec::new();
    join(&mut subject, ms(0), 1, &Bitmap::full(2), &mut out);
    join(&mut subject, ms(0), 2, &Bitmap::full(2), &mut out);
    out.clear();
    // Looked at twice, so that its patience is no whole number of microseconds.
    for heard in [200, 400].map(ms) {
        tick_until(&mut subject, ms(0), heard);
        subject.handle(heard, Event::Received(1, 1000), &mut out);
    }
    let robbed = tick_until(&mut subject, ms(400), ms(1000));
    assert!(
        matches!(robbed[..], [(Time(974_218), Action::Get(2, _)), ..]),
        "{robbed:?}"
    );
}

/// Answers every request of `sources`, one every `pace`, until `until`; what was asked of others. Chunks chosen are the
/// first that are wanted.
fn deliver(
    subject: &mut Scheduler,
    sources: &[SourceId],
    asked: &mut Vec<Action>,
    times: std::ops::Range<u64>,
    pace: usize,
) {
    let size = u64::from(CHUNK);
    for now in times.step_by(pace).map(ms) {
        for &id in sources {
            let of_it = |action: &Action| match *action {
                Action::Get(from, _) | Action::Any(from) => from == id,
                _ => false,
            };
            let Some(place) = asked.iter().position(of_it) else {
                continue;
            };
            let index = match asked.remove(place) {
                Action::Get(_, index) => Some(index),
                _ => subject.wanted.first(),
            };
            let Some(index) = index else {
                subject.handle(now, Event::Exhausted(id), asked);
                continue;
            };
            subject.handle(now, Event::Chosen(id, index), asked);
            subject.handle(now, Event::Received(id, size), asked);
            subject.handle(now, Event::Stored(id, index), asked);
        }
        if subject.deadline().is_some_and(|deadline| deadline <= now) {
            subject.handle(now, Event::Tick, asked);
        }
    }
}

#[test]
fn an_origin_that_stalls_is_replaced_by_another_within_a_second() {
    for is_exhausted in [false, true] {
        let mut subject = scheduler(200);
        let mut asked = Vec::new();
        // Others fetch as well, so that origins choose.
        subject.handle(ms(0), Event::Bitmap(3, Bitmap::empty(200)), &mut asked);
        subject.handle(ms(0), Event::Bitmap(1, Bitmap::full(200)), &mut asked);
        subject.handle(ms(0), Event::Bitmap(2, Bitmap::full(200)), &mut asked);
        deliver(&mut subject, &[1, 2], &mut asked, 0..500, 10);
        assert!(subject.sources[&2].is_busy());
        // Chunks take long to come from others: what is exhausted is held for long.
        subject.takes = Duration::from_secs(1);
        if is_exhausted {
            let is_any = |action: &Action| *action == Action::Any(1);
            while let Some(place) = asked.iter().position(is_any) {
                asked.remove(place);
                subject.handle(ms(500), Event::Exhausted(1), &mut asked);
            }
            assert!(
                !subject.sources[&1].is_busy(),
                "it waits for what others get"
            );
        }
        // The second stops here. The first is asked for all that is left.
        let mut stops = Vec::new();
        let mut last = ms(500);
        for begin in (500..4000).step_by(10) {
            let before = subject.missing_count();
            deliver(&mut subject, &[1], &mut asked, begin..begin + 10, 10);
            if subject.missing_count() < before {
                stops.push(ms(begin).since(last));
                last = ms(begin);
            }
        }
        assert!(subject.is_done(), "{} missing", subject.missing_count());
        let longest = stops.into_iter().max().expect("some came");
        assert!(longest < Duration::from_secs(1), "{longest:?}");
    }
}

#[test]
fn an_origin_that_is_busy_with_others_has_not_stopped_while_something_comes() {
    let mut subject = scheduler(200);
    let mut asked = Vec::new();
    let mut peer = Bitmap::empty(200);
    peer.insert_range(0..150);
    subject.takes = Duration::from_secs(1);
    subject.handle(ms(0), Event::Bitmap(3, peer), &mut asked);
    // The first has nothing more to choose, the second does not get round to it.
    join(&mut subject, ms(0), 1, &Bitmap::full(200), &mut asked);
    subject.handle(ms(0), Event::Bitmap(2, Bitmap::full(200)), &mut asked);
    let asks_first = |asked: &[Action]| {
        asked
            .iter()
            .any(|action| matches!(action, Action::Get(1, _)))
    };
    for begin in (0..1_900).step_by(20) {
        deliver(&mut subject, &[3], &mut asked, begin..begin + 20, 20);
        assert!(!asks_first(&asked), "{begin} ms");
    }
    assert!(subject.missing_count() < 120, "the other one delivers");
    deliver(&mut subject, &[3], &mut asked, 1_900..2_500, 20);
    assert!(asked.contains(&Action::Any(1)), "it may have more by now");
    subject.handle(ms(2_500), Event::Exhausted(1), &mut asked);
    assert!(asks_first(&asked));
}

#[test]
fn what_a_stopped_source_owes_is_had_within_a_second_when_nothing_else_is_left() {
    let mut subject = scheduler(40);
    let mut asked = Vec::new();
    join(&mut subject, ms(0), 1, &Bitmap::full(40), &mut asked);
    join(&mut subject, ms(0), 2, &Bitmap::full(40), &mut asked);
    deliver(&mut subject, &[1, 2], &mut asked, 0..100, 10);
    deliver(&mut subject, &[1], &mut asked, 100..1100, 10);
    assert!(subject.is_done(), "{} missing", subject.missing_count());
}

#[test]
fn the_only_source_is_dialled_again_when_it_stalls() {
    let mut subject = scheduler(1000);
    let mut asked = Vec::new();
    join(&mut subject, ms(0), 1, &Bitmap::full(1000), &mut asked);
    deliver(&mut subject, &[1], &mut asked, 0..510, 10);
    let last = ms(500);
    let done = tick_until(&mut subject, ms(510), ms(9_000));
    let again: Vec<_> = done
        .iter()
        .filter(|(_, action)| *action == Action::Again(1))
        .collect();
    assert_eq!(again.len(), 1, "once: {done:?}");
    assert!(again[0].0.since(last) < Duration::from_secs(1), "{again:?}");
    // What it owes is asked of the other connection at once.
    let mut out = Vec::new();
    join(&mut subject, ms(9_000), 2, &Bitmap::full(1000), &mut out);
    assert!(!gets(&out).is_empty());
}

#[test]
fn a_source_that_is_slow_and_alive_is_neither_dialled_again_nor_given_up() {
    let mut subject = scheduler(100);
    let mut out = Vec::new();
    join(&mut subject, ms(0), 1, &Bitmap::full(100), &mut out);
    for now in (0..20_000).step_by(10).map(ms) {
        if now.0 % 600_000 == 0 {
            subject.handle(now, Event::Received(1, 16_384), &mut out);
        }
        if subject.deadline().is_some_and(|deadline| deadline <= now) {
            subject.handle(now, Event::Tick, &mut out);
        }
    }
    let others: Vec<_> = out
        .iter()
        .filter(|action| !matches!(action, Action::Get(..) | Action::Any(_)))
        .collect();
    assert!(others.is_empty(), "{others:?}");
}

#[test]
fn a_slow_disk_is_no_stall() {
    let mut subject = scheduler(100);
    let mut asked = Vec::new();
    join(&mut subject, ms(0), 1, &Bitmap::full(100), &mut asked);
    deliver(&mut subject, &[1], &mut asked, 0..100, 10);
    // A chunk has come, and is not stored.
    subject.handle(ms(110), Event::Received(1, CHUNK.into()), &mut asked);
    let done = tick_until(&mut subject, ms(110), ms(5_000));
    assert_eq!(done, []);
}

#[test]
fn who_has_nothing_to_do_at_the_end_takes_from_the_longest_line() {
    let mut subject = scheduler(4);
    let mut out = Vec::new();
    let mut partial = Bitmap::full(4);
    partial.remove(3);
    subject.handle(ms(0), Event::Bitmap(1, partial.clone()), &mut out);
    // It has earned to owe all three.
    subject.sources.get_mut(&1).expect("joined").window = 4 * u64::from(CHUNK);
    subject.handle(ms(0), Event::Received(1, 0), &mut out);
    let asked = gets(&std::mem::take(&mut out));
    assert_eq!(asked.len(), 3);
    subject.handle(ms(1), Event::Chosen(1, asked[0].1), &mut out);
    subject.handle(ms(1), Event::Bitmap(2, partial.clone()), &mut out);
    assert_eq!(out, [], "chunk 3 is still wanted: this is not the end");
    subject.wanted.remove(3);
    subject.handle(ms(2), Event::Have(2, vec![0]), &mut out);
    let (begun, last) = (asked[0].1, asked[2].1);
    assert_eq!(out, [Action::Cancel(1, last), Action::Get(2, last)]);
    out.clear();
    subject.handle(ms(3), Event::Bitmap(3, partial), &mut out);
    assert_eq!(out, [], "neither {begun}, which has begun, nor the next");
}

#[test]
fn an_origin_is_spared_when_enough_others_have_everything() {
    let mut subject = scheduler(20);
    let mut out = Vec::new();
    join(&mut subject, ms(0), 9, &Bitmap::full(20), &mut out);
    for id in 1..=4 {
        subject.handle(ms(0), Event::Bitmap(id, Bitmap::empty(20)), &mut out);
    }
    out.clear();
    for id in 1..=4 {
        subject.handle(ms(1), Event::Bitmap(id, Bitmap::full(20)), &mut out);
    }
    subject.handle(ms(2000), Event::Tick, &mut out);
    let asked = gets(&out);
    assert!(
        asked.len() > 4 && asked.iter().all(|&(id, _)| id != 9),
        "{asked:?}"
    );
}

/// What a fake source does with a request.
#[derive(Clone, Copy, Debug)]
enum Mood {
    Honest,
    Silent,
    Lying,
    Leaving,
    Forgetful,
}

fn mood() -> impl Strategy<Value = Mood> {
    prop_oneof![
        3 => Just(Mood::Honest),
        1 => Just(Mood::Silent),
        1 => Just(Mood::Lying),
        1 => Just(Mood::Leaving),
        1 => Just(Mood::Forgetful),
    ]
}

proptest! {
    /// If one honest source has everything, the rest may do what they like.
    #[test]
    fn it_finishes_whatever_the_others_do(
        chunks in 0u32..80,
        seed: u64,
        others in prop::collection::vec((mood(), any::<u64>()), 0..8),
    ) {
        let mut subject = Scheduler::new(geometry(chunks), Bitmap::empty(chunks), seed);
        let mut moods = vec![Mood::Honest];
        let mut out = Vec::new();
        subject.handle(ms(0), Event::Bitmap(0, Bitmap::full(chunks)), &mut out);
        for (mood, bits) in others {
            let mut have = Bitmap::empty(chunks);
            for index in (0..chunks).filter(|index| bits >> (index % 64) & 1 == 1) {
                have.insert(index);
            }
            subject.handle(ms(0), Event::Bitmap(moods.len() as u64, have), &mut out);
            moods.push(mood);
        }
        let mut now = ms(0);
        let mut steps = 0;
        while !subject.is_done() {
            steps += 1;
            prop_assert!(steps < 2000, "it does not finish: {:?}", subject);
            now = now + Duration::from_millis(100);
            let actions = std::mem::take(&mut out);
            for action in actions {
                let (id, chosen) = match action {
                    Action::Get(id, index) => (id, Some(index)),
                    Action::Any(id) => (id, None),
                    Action::Again(_)
                    | Action::Cancel(..)
                    | Action::Drop(_)
                    | Action::Blame(..) => continue,
                };
                let mood = moods[usize::try_from(id).expect("few")];
                let index = match (chosen, subject.wanted.first(), mood) {
                    (Some(index), _, _) => index,
                    (None, _, Mood::Silent) => continue,
                    (None, Some(index), Mood::Honest | Mood::Lying) => {
                        subject.handle(now, Event::Chosen(id, index), &mut out);
                        index
                    }
                    _ => {
                        subject.handle(now, Event::Exhausted(id), &mut out);
                        continue;
                    }
                };
                let event = match mood {
                    Mood::Honest => {
                        subject.handle(now, Event::Received(id, u64::from(CHUNK)), &mut out);
                        Event::Stored(id, index)
                    }
                    Mood::Silent => continue,
                    Mood::Lying => Event::Corrupt(id, index),
                    Mood::Leaving => Event::Gone(id),
                    Mood::Forgetful => Event::Missing(id, index),
                };
                subject.handle(now, event, &mut out);
            }
            subject.handle(now, Event::Tick, &mut out);
            for (&asked, index) in subject.asked.iter().zip(0..) {
                let owe = subject.sources.values().filter(|source| source.owes(index));
                prop_assert_eq!(usize::from(asked), owe.count());
            }
        }
        prop_assert!(subject.asked.iter().all(|&asked| asked == 0));
        prop_assert_eq!(subject.deadline(), None);
    }
}
