//! Micro-benchmarks of what every chunk and every message costs: `cargo bench -p anchorage-manifest`.

use anchorage_manifest::{
    Bitmap, ContentId, Hash, NodeId,
    bitmap::Segment,
    codec,
    wire::{Answer, Ask, Request, ToAnchor},
};
use divan::{Bencher, black_box, counter::BytesCount};

fn main() {
    divan::main();
}

fn content() -> ContentId {
    ContentId(Hash::of(b"content"))
}

/// Every other chunk of `len`.
fn half(len: u32) -> Bitmap {
    let mut half = Bitmap::empty(len);
    (0..len).step_by(2).for_each(|index| {
        half.insert(index);
    });
    half
}

/// SHA-256 of a chunk, by its size.
#[divan::bench(args = [16 << 10, 128 << 10, 512 << 10, 1 << 20, 16 << 20])]
fn sha256(bencher: Bencher<'_, '_>, size: usize) {
    let mut chunk = vec![0; size];
    fastrand::Rng::with_seed(1).fill(&mut chunk);
    bencher
        .counter(BytesCount::new(size))
        .bench(|| Hash::of(black_box(&chunk)));
}

/// The commonest messages, both ways through the codec.
mod message {
    use super::{
        Answer, Ask, Bencher, Bitmap, NodeId, Request, ToAnchor, black_box, codec, content, half,
    };
    use serde::{Serialize, de::DeserializeOwned};

    fn encode<T: Serialize + Sync>(bencher: Bencher<'_, '_>, message: &T) {
        bencher.bench(|| codec::frame(black_box(message)));
    }

    fn decode<T: Serialize + DeserializeOwned>(bencher: Bencher<'_, '_>, message: &T) {
        let body = codec::encode(message);
        bencher.bench(|| codec::decode::<T>(black_box(&body)).expect("encoded just now"));
    }

    fn get() -> Ask {
        Ask::Get {
            content: content(),
            index: 70_000,
        }
    }

    fn chunk() -> Answer {
        Answer::Chunk {
            content: content(),
            index: 70_000,
            size: 512 << 10,
        }
    }

    fn have() -> Answer {
        Answer::Have {
            content: content(),
            chunks: (70_000..70_008).collect(),
        }
    }

    fn bitmap(len: u32) -> Answer {
        Answer::Bitmap {
            content: content(),
            have: half(len),
        }
    }

    fn full(len: u32) -> Answer {
        Answer::Bitmap {
            content: content(),
            have: Bitmap::full(len),
        }
    }

    fn ack(chunks: u32) -> ToAnchor {
        let request = Request::Ack {
            content: content(),
            deliveries: vec![anchorage_manifest::wire::Delivery {
                from: NodeId([7; 32]),
                chunks: (70_000..70_000 + chunks).collect(),
            }],
        };
        ToAnchor { id: 9, request }
    }

    #[divan::bench]
    fn encode_get(bencher: Bencher<'_, '_>) {
        encode(bencher, &get());
    }

    #[divan::bench]
    fn decode_get(bencher: Bencher<'_, '_>) {
        decode(bencher, &get());
    }

    #[divan::bench]
    fn encode_chunk_header(bencher: Bencher<'_, '_>) {
        encode(bencher, &chunk());
    }

    #[divan::bench]
    fn decode_chunk_header(bencher: Bencher<'_, '_>) {
        decode(bencher, &chunk());
    }

    #[divan::bench]
    fn encode_have_of_8(bencher: Bencher<'_, '_>) {
        encode(bencher, &have());
    }

    #[divan::bench]
    fn decode_have_of_8(bencher: Bencher<'_, '_>) {
        decode(bencher, &have());
    }

    #[divan::bench(args = [1, 64, 512])]
    fn encode_ack(bencher: Bencher<'_, '_>, chunks: u32) {
        encode(bencher, &ack(chunks));
    }

    #[divan::bench(args = [1, 64, 512])]
    fn decode_ack(bencher: Bencher<'_, '_>, chunks: u32) {
        decode(bencher, &ack(chunks));
    }

    #[divan::bench(args = [2_048, 10_000, 100_000])]
    fn encode_bitmap(bencher: Bencher<'_, '_>, len: u32) {
        encode(bencher, &bitmap(len));
    }

    #[divan::bench(args = [2_048, 10_000, 100_000])]
    fn decode_bitmap(bencher: Bencher<'_, '_>, len: u32) {
        decode(bencher, &bitmap(len));
    }

    #[divan::bench(args = [100_000])]
    fn decode_full_bitmap(bencher: Bencher<'_, '_>, len: u32) {
        decode(bencher, &full(len));
    }
}

/// Sets of chunks; by the number of chunks of the content.
mod bitmap {
    use super::{Bencher, Bitmap, Segment, black_box, half};

    const LENS: [u32; 2] = [10_000, 1 << 20];

    #[divan::bench(args = LENS)]
    fn insert_and_remove(bencher: Bencher<'_, '_>, len: u32) {
        let mut set = half(len);
        bencher.bench_local(|| {
            set.insert(black_box(len / 2 + 1));
            set.remove(black_box(len / 2 + 1))
        });
    }

    #[divan::bench(args = LENS)]
    fn iterate_half(bencher: Bencher<'_, '_>, len: u32) {
        let set = half(len);
        bencher.bench(|| black_box(&set).iter().map(u64::from).sum::<u64>());
    }

    #[divan::bench(args = LENS)]
    fn iterate_intersection(bencher: Bencher<'_, '_>, len: u32) {
        let (one, two) = (half(len), Bitmap::full(len));
        bencher.bench(|| black_box(&one).intersection(black_box(&two)).count());
    }

    /// The only one in the set is the last.
    #[divan::bench(args = LENS)]
    fn next_far_away(bencher: Bencher<'_, '_>, len: u32) {
        let mut set = Bitmap::empty(len);
        set.insert(len - 1);
        bencher.bench(|| black_box(&set).next_from(black_box(0)));
    }

    #[divan::bench(args = LENS)]
    fn first_missing(bencher: Bencher<'_, '_>, len: u32) {
        let mut set = Bitmap::full(len);
        set.remove(len - 1);
        bencher.bench(|| black_box(&set).first_missing());
    }

    /// A whole segment of an announcement.
    #[divan::bench]
    fn merge_segment(bencher: Bencher<'_, '_>) {
        let segment: Segment = half(16_384).segments().remove(0);
        bencher
            .with_inputs(|| Bitmap::empty(16_384))
            .bench_local_values(|mut set| {
                set.merge(black_box(&segment)).expect("it fits");
                set
            });
    }

    #[divan::bench(args = LENS)]
    fn segments(bencher: Bencher<'_, '_>, len: u32) {
        let set = half(len);
        bencher.bench(|| black_box(&set).segments());
    }
}
