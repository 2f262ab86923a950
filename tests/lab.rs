//! What needs root, tmux and network namespaces: two machines on one network, people in panes of tmux.
