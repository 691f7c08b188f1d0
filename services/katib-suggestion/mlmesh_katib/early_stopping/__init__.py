"""Early stopping: which trials are not worth their time; each way is a file behind one small interface."""
