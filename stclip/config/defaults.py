"""Every config key with its default. A key that is not here does not exist.

The defaults are the recipe of the reference on J-HMDB (ViT-B/16). Keys that people know from the
reference keep their names; GETTING_STARTED.md says how a yaml file and the command line set them.
"""

from yacs.config import CfgNode

_C = CfgNode()

# Where everything that a run writes goes. A run never overwrites another one's files.
_C.OUTPUT_DIR = "output"
# Seeds initialisation, shuffling and the choice of boxes.
_C.SEED = 2

# ---------------------------------------------------------------- vocabularies
# Text files, one class name a line. The order of TRAIN_LABEL and TEST_LABEL is the order of the
# vocabulary; the names are read by the text encoder exactly as written.
_C.ALL_LABEL = ""
_C.TRAIN_LABEL = ""
_C.TEST_LABEL = ""
# Where a person can have several labels (AVA): a file with a group for each line of ALL_LABEL, one
# of pose, object, person. A person has one pose (softmax over the vocabulary's pose classes), and
# any number of the others (a sigmoid each). "": every person has exactly one label (softmax).
_C.ALL_GROUP = ""
# Optional lists of videos, one a line; "" means all videos of the labels above.
_C.TRAIN_VIDEO = ""
_C.TEST_VIDEO = ""

# ---------------------------------------------------------------- model
_C.MODEL = CfgNode()
# stclip, or CLIP without any training: frame (the whole keyframe against the class names), crop
# (the person's crop), frame_crop (the sum of both features). Of the keys below, those three read
# only WEIGHT, CLIP, CLIP_ACTIVATION, DEVICE, PRECISION and HEAD.
# Or xclip: X-CLIP, as it is or fine-tuned, whose score of a clip every person in it gets. It reads
# WEIGHT, CLIP, CLIP_ACTIVATION, DEVICE, PRECISION and XCLIP; the classes exclude each other (no
# ALL_GROUP).
_C.MODEL.NAME = "stclip"
# A checkpoint of ours or of the reference; it carries CLIP too. "" starts from MODEL.CLIP. A
# baseline takes the CLIP out of it, as it was before LoRA.
_C.MODEL.WEIGHT = ""
# A name (ViT-B/32, ViT-B/16, ViT-L/14, ViT-L/14@336px: downloaded once; puppet: the small one that
# comes with the package) or a file of CLIP weights. With NAME xclip also a name (k400_16_8, zero,
# ...) or a file of X-CLIP weights; from CLIP's, the parts that X-CLIP adds start freshly.
_C.MODEL.CLIP = "ViT-B/16"
# The function in the MLPs of CLIP's towers that its weights were trained with: quick_gelu (all of
# OpenAI's) or gelu (most of open_clip's). auto: what the config beside the weights, a TorchScript
# program or the model's name tells, else quick_gelu, with a warning. Checkpoints of ours tell it.
_C.MODEL.CLIP_ACTIVATION = "auto"
# The image tower of stclip: clip, or X-CLIP's (xclip), in whose blocks the frames of a window
# exchange messages. MODEL.CLIP may then be CLIP or X-CLIP.
_C.MODEL.BACKBONE = "clip"
# Of BACKBONE xclip: whether the layers that make the messages are trained, which they have to be if
# MODEL.CLIP is a CLIP, where they start from random numbers. False: frozen, like the rest.
_C.MODEL.TRAIN_MESSAGES = True
# auto (CUDA if there is one), cpu, cuda.
_C.MODEL.DEVICE = "auto"
# fp32, or autocast to bf16 or fp16.
_C.MODEL.PRECISION = "fp32"
# Compute in the ways that are fastest for device and precision. False: by the plain formulas, which
# takes longer and rounds differently; to see whether a result depends on it.
_C.MODEL.FAST = True
# Let torch.compile generate code for the blocks of the image tower, which takes a minute at the
# start of a run, and rounds differently. CONTRIBUTING.md says how to measure whether it gains.
_C.MODEL.COMPILE = False

# LoRA on the MLPs of the vision blocks. RANK 0 leaves it out.
_C.MODEL.LORA = CfgNode()
_C.MODEL.LORA.RANK = 8
_C.MODEL.LORA.ALPHA = 1.0

# Person tokens from the crops. Without them the class token's output stands for every person.
_C.MODEL.PERSON_TOKENS = CfgNode()
_C.MODEL.PERSON_TOKENS.ENABLED = True

# A window of frames around the keyframe. With BACKBONE clip its patches are mixed to context
# tokens; with xclip its frames exchange messages. Without it: the keyframe and its own patches.
_C.MODEL.TEMPORAL = CfgNode()
_C.MODEL.TEMPORAL.ENABLED = True
# With BACKBONE xclip, mix the patches to context tokens as well, before the first block. The
# messages do not tell the order of the frames; this does.
_C.MODEL.TEMPORAL.BEFORE_XCLIP = False
_C.MODEL.TEMPORAL.FRAMES = 9
# From one frame of the window to the next: 1 takes consecutive ones.
_C.MODEL.TEMPORAL.STRIDE = 1
# Blocks of self-attention over the frames.
_C.MODEL.TEMPORAL.DEPTH = 1
# The temporal embedding starts with this standard deviation, 1 as in the reference, where it is far
# larger than the patch embeddings that it is added to. A small model with a short training, such as
# Puppet's, starts better with 0.01.
_C.MODEL.TEMPORAL.INIT_STD = 1.0

# Context prompting of the class names, after every vision block. Without it they stay CLIP's.
_C.MODEL.PROMPT = CfgNode()
_C.MODEL.PROMPT.ENABLED = True
_C.MODEL.PROMPT.ALPHA = 0.2  # initial value of the learned scale
# The prompts' weights start with this standard deviation. What they add to the text then grows with
# their width; in a narrow model it is next to nothing.
_C.MODEL.PROMPT.INIT_STD = 0.02
# Vision blocks after which the class names are prompted, counted from 1, such as (10, 11, 12); ():
# after all.
_C.MODEL.PROMPT.LAYERS = ()
# Blocks of cross-attention and MLP in each prompt.
_C.MODEL.PROMPT.DEPTH = 1

# Interest token spotting: each person's class names are prompted only by the tokens that the person
# attends to most. It has no parameters; needs PERSON_TOKENS and PROMPT.
_C.MODEL.INTEREST_TOKENS = CfgNode()
_C.MODEL.INTEREST_TOKENS.ENABLED = False
# How many of the class and patch tokens (197 in ViT-B/16). 0: all. The paper does not say how many
# it takes; 20 is a guess.
_C.MODEL.INTEREST_TOKENS.TOP_K = 20
# Whether the person's own token prompts too; in the paper only context tokens do.
_C.MODEL.INTEREST_TOKENS.INCLUDE_PERSON = False

# X-CLIP as a baseline.
_C.MODEL.XCLIP = CfgNode()
# What is scored at once, and is a sample of the training. video: a whole video, which suits videos
# of one action each (J-HMDB, Puppet). window: frames around each keyframe, for videos in which
# actions begin and end (UCF101-24).
_C.MODEL.XCLIP.UNIT = "video"
# Frames of a clip. Of a whole video they are the middles of so many equal parts.
_C.MODEL.XCLIP.FRAMES = 8
# From one frame of a window to the next. Where the window does not fit, it is the whole video.
_C.MODEL.XCLIP.STRIDE = 4

# Cosine scores.
_C.MODEL.HEAD = CfgNode()
_C.MODEL.HEAD.TEMPERATURE = 0.07

# ---------------------------------------------------------------- data
_C.DATASETS = CfgNode()
# Holds jhmdb/, puppet/ and the others.
_C.DATASETS.DATA_DIR = "data"
# jhmdb, ucf24, ava, puppet, puppet_crowd, puppet_context, or a file in our annotations format
# (.json; see DATA.md).
_C.DATASETS.TRAIN = "jhmdb"
_C.DATASETS.TEST = "jhmdb"
# A detections file in place of the dataset's own: .json (COCO-like), .jsonl, or AVA's .csv (see
# DATA.md).
_C.DATASETS.DETECTIONS = ""

# How time is counted in data in AVA's form; the defaults are AVA's own.
_C.DATASETS.AVA = CfgNode()
# The first and the last second that is annotated; rows of others are left out with a warning.
_C.DATASETS.AVA.SECONDS = (902, 1798)
# The second that frame 1 shows, and frames a second from there on.
_C.DATASETS.AVA.START = 900
_C.DATASETS.AVA.FPS = 30

_C.DATALOADER = CfgNode()
_C.DATALOADER.NUM_WORKERS = 2
# Whose arithmetic resizes frames and crops: pillow (as CLIP and the reference; published weights
# were made with it) or torch (faster; a few values come out higher or lower by 1 of 255, seldom 2;
# tools/benchmark_pictures.py measures both). X-CLIP's clips (MODEL.NAME xclip) have their own.
_C.DATALOADER.RESIZE = "pillow"
# Larger picture files (width times height; at most 178956970) are refused before being decoded.
_C.DATALOADER.MAX_PIXELS = 67108864
# A folder that keeps preprocessed frames and crops for later epochs and runs, which may share it.
# "": none is kept. X-CLIP's clips (MODEL.NAME xclip) are not.
_C.DATALOADER.STORE = ""
# How large it may become, in 10^9 bytes; then nothing more is added. 0: no limit. See DATA.md.
_C.DATALOADER.STORE_GB = 0.0

# ---------------------------------------------------------------- training
_C.SOLVER = CfgNode()
# sgd or adamw.
_C.SOLVER.OPTIMIZER = "sgd"
_C.SOLVER.BASE_LR = 2.5e-4
# With MODEL.NAME xclip: the rate of the parts that X-CLIP adds to CLIP, times that of the others.
_C.SOLVER.NEW_LR_FACTOR = 1.0
# Of adamw: the first of its two decay rates (the second is 0.98).
_C.SOLVER.MOMENTUM = 0.9
# Of adamw: not of vectors and of CLIP's and X-CLIP's positions.
_C.SOLVER.WEIGHT_DECAY = 1e-7
_C.SOLVER.MAX_ITER = 3000
# step (times GAMMA at each of STEPS) or cosine (half a period, to zero at MAX_ITER). The released
# steps lie beyond MAX_ITER: after the warm-up the rate is constant.
_C.SOLVER.SCHEDULE = "step"
_C.SOLVER.STEPS = (20000, 25000)
_C.SOLVER.GAMMA = 0.1
_C.SOLVER.WARMUP_ON = True
_C.SOLVER.WARMUP_FACTOR = 0.25
_C.SOLVER.WARMUP_ITERS = 800
# Keyframes an iteration, over all processes and accumulation steps; videos with XCLIP.UNIT video.
_C.SOLVER.VIDEOS_PER_BATCH = 8
# Each iteration's keyframes are passed through the model in this many parts.
_C.SOLVER.ACCUMULATION_STEPS = 1
# Keep only the input of each block, of the image tower and of the prompts, for the backward pass
# and compute the rest anew there: the same results from less memory, in a third to a half more time
# on a CPU.
_C.SOLVER.ACTIVATION_CHECKPOINTING = False
# At most this many ground-truth boxes of a keyframe, drawn anew each time.
_C.SOLVER.MAX_PERSONS = 10
# Exponent of the focal loss; 0 makes it the cross entropy.
_C.SOLVER.FOCAL_GAMMA = 2.0
# Iterations between checkpoints, validations (0: none) and log lines.
_C.SOLVER.CHECKPOINT_PERIOD = 500
_C.SOLVER.EVAL_PERIOD = 0
_C.SOLVER.LOG_PERIOD = 20

# ---------------------------------------------------------------- testing
_C.TEST = CfgNode()
# detected, or ground_truth (with a detector score of 1).
_C.TEST.BOXES = "detected"
# Person boxes that the detector scored lower are not used.
_C.TEST.BOX_THRESH = 0.0
# A keyframe's first boxes of the detection file. 0: all.
_C.TEST.MAX_PERSONS = 3
# Rows of the result with a score not above this are not written.
_C.TEST.ACTION_THRESH = 0.0
# Average the class scores over all persons of a video ("soft voting").
_C.TEST.SINGLE_ACTION = False
# Score all of ALL_LABEL, not of TEST_LABEL only. The frame mAP of TEST_LABEL's classes, of the
# others and of all are reported, and the harmonic mean of the first two.
_C.TEST.GENERALIZED = False
# Thresholds of the frame mAP.
_C.TEST.IOU_THRESHOLDS = (0.2, 0.5, 0.75)
# Consecutive keyframes of one video that go through the model at once; all with XCLIP.UNIT video.
_C.TEST.VIDEOS_PER_BATCH = 8


def get_cfg_defaults() -> CfgNode:
    """A fresh, unfrozen config with every key at its default."""
    return _C.clone()
