//! What a person or a script may ask.
