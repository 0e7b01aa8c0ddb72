//! What each message does, as tables, and the rules of the interface as properties.
