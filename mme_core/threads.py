"""The threads of libraries, in processes that have one core each."""

# As environment of a process: NumPy's BLAS would start as many threads as the machine has cores,
# and these wait for each other by spinning. OpenCV and torch must be told when they are there.
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1"
)
