//! Signed facts about membership.
