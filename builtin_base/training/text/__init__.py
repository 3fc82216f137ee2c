"""The text that is learnt from: readers, what is dropped, tasks made from it, and its tokenised form."""
