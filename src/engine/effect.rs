//! Everything a session can ask of the world.
