//! What the engine refuses, with stable codes for faces.
