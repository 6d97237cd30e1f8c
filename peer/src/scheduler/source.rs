//! What the scheduler knows of one source: what it has, what it owes, how fast it is.

use super::{AGAIN, SLOWER, STALL};
use crate::time::Time;
use anchorage_manifest::Bitmap;
use std::time::Duration;

/// Work that a source is given ahead, in time at its measured rate, on top of twice the delay of its answers.
const AHEAD: Duration = Duration::from_millis(250);

/// Most of the delay of a source's answers that counts.
const DELAY_MAX: Duration = Duration::from_secs(1);

/// How long a new source is believed to be silent at times; less and less as it proves better.
const SILENCE_NEW: Duration = Duration::from_millis(250);

/// Bytes that a new source is given ahead; as many again as it delivers, until its rate is known.
const AHEAD_SIZE_NEW: u64 = 64 << 10;

/// Most bytes that a source is given ahead.
const AHEAD_SIZE_MAX: u64 = 32 << 20;

/// Requests that a source of unknown rate is given ahead, and chunks that one which chooses is always asked for: there
/// is no other way to learn what it can.
pub(crate) const REQUESTS_MIN: u32 = 2;

/// Most requests that a source is given ahead.
const REQUESTS_MAX: usize = 256;

/// One source.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) have: Bitmap,
    /// In the order in which it was asked.
    pub(super) owed: Vec<Owed>,
    pub(super) owed_bytes: u64,
    /// Bytes that came of them.
    arrived: u64,
    /// Chunks that it was asked to choose and has not begun to send.
    pub(super) owed_any: u32,
    /// Whether it had everything when it came.
    pub(super) is_origin: bool,
    /// Since when it has nothing that nobody has.
    pub(super) exhausted: Option<Time>,
    /// Whether it was asked once more to choose since then.
    pub(super) is_asked_again: bool,
    /// Bytes that it has earned to owe.
    pub(super) window: u64,
    /// Bytes a second, smoothed; none until something came.
    pub(super) rate: Option<f64>,
    pub(super) bytes_since_tick: u64,
    pub(super) heard: Time,
    /// The longest that it was silent while it owed something, lately; none until something came.
    silence: Option<Duration>,
    /// Whether its node was dialled again for the silence that it keeps now.
    pub(super) is_dialled_again: bool,
    /// Least time from a request to the begin of its answer.
    delay: Option<Duration>,
}

/// A chunk that a source was asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owed {
    pub(super) index: u32,
    asked: Time,
    has_begun: bool,
}

impl Source {
    /// A source that comes now; it has everything or, as far as is known, nothing yet.
    pub(super) fn new(have: &Bitmap, now: Time) -> Self {
        Self {
            have: Bitmap::empty(have.len()),
            owed: Vec::new(),
            owed_bytes: 0,
            arrived: 0,
            owed_any: 0,
            is_origin: have.is_full(),
            exhausted: None,
            is_asked_again: false,
            window: AHEAD_SIZE_NEW,
            rate: None,
            bytes_since_tick: 0,
            heard: now,
            silence: None,
            is_dialled_again: false,
            delay: None,
        }
    }

    /// Whether it owes something and is silent.
    pub(super) fn has_stalled(&self, now: Time) -> bool {
        !self.owed.is_empty() && self.is_silent(now)
    }

    /// Whether it is to send something and is silent for longer than it usually is.
    pub(super) fn is_silent(&self, now: Time) -> bool {
        self.is_busy() && now >= self.heard + self.patience()
    }

    /// Whether it is silent for so long that another connection to its node might be better.
    pub(super) fn is_worth_another(&self, now: Time) -> bool {
        let patience = self.patience_with_all();
        self.is_busy()
            && !self.is_dialled_again
            && patience.is_some_and(|patience| now >= self.heard + patience)
    }

    /// When it will be silent for too long, if it remains so.
    pub(super) fn stalls_at(&self) -> impl Iterator<Item = Time> {
        let patiences = [Some(self.patience()), self.patience_with_all()];
        let heard = self.heard;
        patiences
            .into_iter()
            .flatten()
            .map(move |patience| heard + patience)
    }

    fn patience(&self) -> Duration {
        let (times, bounds) = STALL;
        let most = *bounds.end();
        let usual = self.silence.unwrap_or(SILENCE_NEW) * times;
        usual.clamp(*bounds.start(), most)
    }

    fn patience_with_all(&self) -> Option<Duration> {
        let (times, least) = AGAIN;
        self.silence.map(|silence| least.max(silence * times))
    }

    /// Whether it owes something.
    pub(super) fn is_busy(&self) -> bool {
        !self.owed.is_empty() || self.owed_any > 0
    }

    /// How many chunks at the end of what it owes it has not begun to send.
    pub(super) fn line(&self) -> usize {
        let waiting = self.owed.iter().rev().take_while(|owed| !owed.has_begun);
        waiting.count()
    }

    /// Whether it was asked for a chunk.
    pub(super) fn owes(&self, index: u32) -> bool {
        self.owed.iter().any(|owed| owed.index == index)
    }

    /// When it was asked for a chunk that it owes.
    pub(super) fn asked(&self, index: u32) -> Option<Time> {
        let owed = self.owed.iter().find(|owed| owed.index == index);
        owed.map(|owed| owed.asked)
    }

    /// It is asked for a chunk, or has chosen it.
    pub(super) fn owe(&mut self, now: Time, index: u32, size: u64) {
        if self.owed.is_empty() {
            self.heard = now;
        }
        self.owed.push(Owed {
            index,
            asked: now,
            has_begun: false,
        });
        self.owed_bytes += size;
    }

    /// It begins to send a chunk; false if it was not asked for that one.
    pub(super) fn begins(&mut self, now: Time, index: u32) -> bool {
        let Some(owed) = self.owed.iter_mut().find(|owed| owed.index == index) else {
            return false;
        };
        owed.has_begun = true;
        let delay = now.since(owed.asked);
        self.delay = Some(self.delay.map_or(delay, |least| least.min(delay)));
        true
    }

    /// It owes a chunk no longer; false if it did not.
    pub(super) fn settle(&mut self, index: u32, size: u64) -> bool {
        let place = self.owed.iter().position(|owed| owed.index == index);
        if let Some(place) = place {
            self.owed.remove(place);
            self.owed_bytes -= size;
            self.arrived = self.arrived.saturating_sub(size).min(self.owed_bytes);
        }
        place.is_some()
    }

    /// Bytes of what it owes have come.
    pub(super) fn receive(&mut self, now: Time, bytes: u64) {
        if self.is_busy() {
            let usual = self.silence.unwrap_or(SILENCE_NEW);
            self.silence = Some(usual.max(now.since(self.heard)));
        }
        self.heard = now;
        self.is_dialled_again = false;
        self.bytes_since_tick += bytes;
        self.arrived = (self.arrived + bytes).min(self.owed_bytes);
    }

    /// Whether a whole chunk came that is not stored yet.
    pub(super) fn has_come(&self, chunk_size: u32) -> bool {
        self.arrived > 0 && self.arrived >= self.owed_bytes.min(chunk_size.into())
    }

    /// Whether it may have chunks that nobody has.
    pub(super) fn chooses(&self) -> bool {
        self.is_origin && self.exhausted.is_none()
    }

    /// Takes what came in the last `seconds` into its rate.
    pub(super) fn measure(&mut self, seconds: f64) {
        if self.bytes_since_tick > 0 {
            let rate = self.bytes_since_tick as f64 / seconds;
            self.rate = Some(self.rate.map_or(rate, |old| old.mul_add(0.5, rate * 0.5)));
            self.bytes_since_tick = 0;
            self.silence = self.silence.map(|longest| longest * 7 / 8);
        }
    }

    /// Whether it can be asked for one more.
    ///
    /// A source that is slow, mostly because many others ask it, is asked for the next chunk when the last is on its way
    /// at the earliest: what waits there in line can be had from nobody else meanwhile. For the same reason one that sends
    /// to others as well is asked for no more than `most`, but for what its delay takes.
    pub(super) fn has_room(&self, chunk_size: u32, most: usize) -> bool {
        self.owes_less(chunk_size, most, AHEAD)
    }

    /// Whether it owes no more than half of what it may: time to ask for the other half, in one go. Each message costs as
    /// much as a packet of chunks does.
    pub(super) fn is_low(&self, chunk_size: u32, most: usize) -> bool {
        self.owes_less(chunk_size, most.div_ceil(2), AHEAD / 2)
    }

    fn owes_less(&self, chunk_size: u32, most: usize, ahead: Duration) -> bool {
        let owed = self.owed.len() + self.owed_any as usize;
        if owed == 0 || self.rate.is_none() && owed < REQUESTS_MIN as usize {
            return true;
        }
        let chosen_bytes = u64::from(self.owed_any) * u64::from(chunk_size);
        let bytes = self.owed_bytes - self.arrived + chosen_bytes;
        if owed >= REQUESTS_MAX {
            return false;
        }
        if owed < most {
            return bytes < self.ahead(ahead);
        }
        self.rate.is_some() && bytes + u64::from(chunk_size) <= self.ahead(Duration::ZERO)
    }

    /// Whether it can be asked to choose one more.
    pub(super) fn may_choose(&self, chunk_size: u32) -> bool {
        self.owed_any < REQUESTS_MIN && self.owed.len() < REQUESTS_MAX
            || self.has_room(chunk_size, usize::MAX)
    }

    /// Seconds that what it owes would take, if a thief of this rate may take it away; nothing if not.
    pub(super) fn wait(&self, now: Time, thief: Option<f64>) -> f64 {
        if self.has_stalled(now) {
            return f64::INFINITY;
        }
        match (self.rate, thief) {
            (Some(theirs), Some(ours)) if theirs * SLOWER < ours => self.owed_bytes as f64 / theirs,
            _ => 0.0,
        }
    }

    /// How many bytes it may owe before it is asked for more: slow start as in TCP, bounded by its rate times its
    /// delay, and some time on top so that it never runs dry.
    fn ahead(&self, on_top: Duration) -> u64 {
        let Some(rate) = self.rate else {
            return self.window.min(AHEAD_SIZE_MAX);
        };
        let time = on_top + 2 * self.delay.unwrap_or_default().min(DELAY_MAX);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "clamped"
        )]
        let filled = (rate * time.as_secs_f64()) as u64;
        self.window.min(filled).min(AHEAD_SIZE_MAX)
    }
}
