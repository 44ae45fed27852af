//! Where `unsafe` lives in this tree (the other places are `sys.rs` and `capi.rs`): handing a finished message to libnftnl's
//! batch buffer, and lending out the file descriptor that a [`mnl::Socket`] owns.
//!
//! nftnl 0.9.4 knows neither element timeouts nor concatenated keys, so the messages are written in
//! [`wire`](super::wire) as plain bytes; what libnftnl contributes is the batch around them.
#![expect(unsafe_code, reason = "nftnl::NlMsg is an unsafe trait, and mnl::Socket has no AsFd")]

use std::ffi::c_void;
use std::os::fd::{AsRawFd, BorrowedFd};

use nftnl::{MsgType, NlMsg};

use super::wire::{Attributes, HEADER, SUBHEADER, SUBSYSTEM, kind};

/// What a message creates or deletes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Object {
    /// A table.
    Table,
    /// Elements of a set.
    Elements,
}

/// One message of a batch, complete but for its type and sequence number.
///
/// ```text
/// length (4) | type (2) | flags (2) | sequence (4) | sender (4)      struct nlmsghdr, host order
/// family (1) | version (1) | resource (2)                            struct nfgenmsg
/// attributes
/// ```
#[derive(Clone, Debug)]
pub(super) struct Message {
    object: Object,
    /// Whether success is to be acknowledged; failures are reported either way.
    acknowledge: bool,
    /// The whole message with type, flags and sequence still zero.
    bytes: Vec<u8>,
}

impl Message {
    /// A message about `object` in a table of `family` (`NFPROTO_*`).
    ///
    /// Returns `None` when it would exceed [`Message::MAX`], which names and keys of legal length cannot.
    pub(super) fn new(object: Object, family: u8, attributes: Attributes) -> Option<Self> {
        let body = attributes.into_bytes();
        let length = HEADER + SUBHEADER + body.len();
        let mut bytes = Vec::with_capacity(length);
        bytes.extend_from_slice(&u32::try_from(length).ok()?.to_ne_bytes());
        bytes.resize(HEADER, 0);
        bytes.extend_from_slice(&[family, 0, 0, 0]);
        bytes.extend_from_slice(&body);
        (length <= Self::MAX).then_some(Self { object, acknowledge: false, bytes })
    }

    /// The same message, asking to be acknowledged.
    pub(super) fn acknowledged(&self) -> Self {
        Self { acknowledge: true, ..self.clone() }
    }

    /// Far below `nft_nlmsg_maxsize()` (65,535 and a page), which is what [`NlMsg::write`] may rely on.
    pub(super) const MAX: usize = 4096;

    /// The length in bytes, a multiple of four.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The finished bytes.
    fn stamped(&self, sequence: u32, message: MsgType) -> Vec<u8> {
        const NLM_F_REQUEST: u16 = 0x1;
        const NLM_F_ACK: u16 = 0x4;
        const NLM_F_CREATE: u16 = 0x400;
        let (number, create) = match (self.object, message) {
            (Object::Table, MsgType::Add) => (kind::NEWTABLE, 0),
            (Object::Table, MsgType::Del) => (kind::DELTABLE, 0),
            (Object::Elements, MsgType::Add) => (kind::NEWSETELEM, NLM_F_CREATE),
            (Object::Elements, MsgType::Del) => (kind::DELSETELEM, 0),
        };
        let flags = NLM_F_REQUEST | create | if self.acknowledge { NLM_F_ACK } else { 0 };
        let mut bytes = self.bytes.clone();
        let header = [(SUBSYSTEM << 8 | number).to_ne_bytes(), flags.to_ne_bytes()].concat();
        let stamp = header.into_iter().chain(sequence.to_ne_bytes());
        bytes.iter_mut().skip(4).zip(stamp).for_each(|(byte, stamp)| *byte = stamp);
        bytes
    }
}

// SAFETY: the trait asks that `write` never writes more than the largest netlink message; `new` refuses what
// exceeds `MAX`, which is 4096, and the largest is never below 65,535 bytes.
unsafe impl NlMsg for Message {
    unsafe fn write(&self, buf: *mut c_void, seq: u32, msg_type: MsgType) {
        let bytes = self.stamped(seq, msg_type);
        // SAFETY: the caller of `NlMsg::write` promises room for the largest netlink message at `buf`, and
        // `bytes` is at most `MAX` long; a fresh `Vec` does not overlap the batch buffer.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), buf.cast::<u8>(), bytes.len()) };
    }
}

/// The descriptor of `socket`, for calls of `rustix`.
pub(super) fn descriptor(socket: &mnl::Socket) -> BorrowedFd<'_> {
    // SAFETY: the socket owns the descriptor and closes it only when dropped or consumed, which the borrow
    // in the return type rules out.
    unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_carries_length_type_flags_and_sequence_where_the_kernel_looks_for_them() {
        let message =
            Message::new(Object::Elements, 1, Attributes::default().u32(1, 2)).unwrap().acknowledged();
        let bytes = message.stamped(0x0102_0304, MsgType::Add);
        assert_eq!(bytes[..4], 28u32.to_ne_bytes());
        assert_eq!(bytes[4..6], 0x0a0cu16.to_ne_bytes());
        assert_eq!(bytes[6..8], 0x0405u16.to_ne_bytes());
        assert_eq!(bytes[8..12], 0x0102_0304u32.to_ne_bytes());
        assert_eq!(bytes[16..20], [1, 0, 0, 0]);
        assert_eq!(bytes.len(), message.len());
    }

    #[test]
    fn a_message_is_written_whole_and_not_a_byte_beyond() {
        let message = Message::new(Object::Elements, 1, Attributes::default().u32(1, 2)).unwrap();
        let mut room = vec![0xaa; message.len() + 1];
        // SAFETY: there is room for all of this message, and `write` writes no more, which is what is tested.
        unsafe { message.write(room.as_mut_ptr().cast(), 7, MsgType::Del) };
        assert_eq!(room.split_last(), Some((&0xaa, &message.stamped(7, MsgType::Del)[..])));
    }

    #[test]
    fn a_message_larger_than_promised_is_never_made() {
        let attributes = Attributes::default().bytes(1, &[0; Message::MAX]);
        assert!(Message::new(Object::Elements, 1, attributes).is_none());
    }
}
