//! Secrets shared by the readers of a period.
