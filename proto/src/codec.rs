//! How messages become bytes and back on a stream: as tonic does it, with small buffers.

use std::marker::PhantomData;

use tonic::codec::{BufferSettings, Codec};
use tonic_prost::ProstCodec;
use tonic_prost::prost::Message;

/// What a buffer begins with; it grows with what is sent. Most messages are smaller, and a server has two
/// of these for each of thousands of agents.
const BUFFER_BYTES: usize = 512;
/// What is collected at most before it is sent: tonic's default.
const YIELD_BYTES: usize = 32 << 10;

/// The codec of every service.
#[derive(Debug, Clone)]
pub struct Lean<T, U> {
    kinds: PhantomData<(T, U)>,
}

impl<T, U> Default for Lean<T, U> {
    fn default() -> Self {
        Self { kinds: PhantomData }
    }
}

fn settings() -> BufferSettings {
    BufferSettings::new(BUFFER_BYTES, YIELD_BYTES)
}

impl<T, U> Codec for Lean<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = <ProstCodec<T, U> as Codec>::Encoder;
    type Decoder = <ProstCodec<T, U> as Codec>::Decoder;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::raw_encoder(settings())
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<T, U>::raw_decoder(settings())
    }
}
