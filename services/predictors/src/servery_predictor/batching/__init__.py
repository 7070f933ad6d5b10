"""Natural batching: while the model computes, the next requests gather; when it is free, all go as one."""
