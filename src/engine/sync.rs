//! What each peer has and lacks.
