//! Every bound in one file, units in the names.
