//! The lease: who may type, until when.
