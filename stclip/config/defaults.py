"""Every config key with its default. A key that is not here does not exist.

The defaults are the reference's recipe for J-HMDB (ViT-B/16), and its keys keep their names.
GETTING_STARTED.md explains how a yaml file and the command line set them.
"""

from yacs.config import CfgNode

_C = CfgNode()

# Folder for everything that a run writes. A run never overwrites another run's files.
_C.OUTPUT_DIR = "output"
# Seed of initialisation, shuffling and the sampling of boxes.
_C.SEED = 2

# ---------------------------------------------------------------- vocabularies
# Text files with one class name per line. The text encoder reads the names exactly as written;
# their order is the order of the vocabulary.
_C.ALL_LABEL = ""
_C.TRAIN_LABEL = ""
_C.TEST_LABEL = ""
# For several labels per person (AVA): a file with a group for each line of ALL_LABEL, one of pose,
# object, person. A person has one pose (softmax over the pose classes) and any number of the other
# labels (a sigmoid each). "": every person has exactly one label (softmax).
_C.ALL_GROUP = ""
# Beyond the paper: a label file with wordings of names of ALL_LABEL (`name | wording | wording`),
# which the text encoder reads instead of the names. "": the names, or what the label files say.
_C.ALL_WORDING = ""
# Optional lists of videos, one per line; "": all videos of the labels above.
_C.TRAIN_VIDEO = ""
_C.TEST_VIDEO = ""

# ---------------------------------------------------------------- model
_C.MODEL = CfgNode()
# stclip; or CLIP without training on the keyframe (frame), the person's crop (crop), the keyframe
# with the person marked (marked; beyond the paper, see HEAD.MARKED), or a sum of these features
# (frame_crop, frame_marked, frame_crop_marked); or xclip: X-CLIP, fine-tuned or as published, whose
# score of a clip is given to every person in it. The CLIP baselines use only WEIGHT, CLIP,
# CLIP_ACTIVATION, DEVICE, PRECISION and HEAD (without its weights) of the keys below, xclip WEIGHT,
# CLIP, CLIP_ACTIVATION, DEVICE, PRECISION and XCLIP. The classes of xclip are exclusive (no
# ALL_GROUP).
_C.MODEL.NAME = "stclip"
# A checkpoint of ours or of the reference, CLIP included; a folder of `stclip convert --to hub`; or
# the name of one on the Hugging Face Hub (USER/NAME). "": start from MODEL.CLIP. A baseline uses
# the checkpoint's CLIP without LoRA.
_C.MODEL.WEIGHT = ""
# A name (ViT-B/32, ViT-B/16, ViT-L/14, ViT-L/14@336px: downloaded once; puppet: the small CLIP in
# the package) or a file of CLIP weights; or open_clip:MODEL/TAG, a model of open_clip (an extra;
# docs/beyond.md), such as open_clip:ViT-B-16-SigLIP2/webli. With NAME xclip also a name (k400_16_8,
# zero, ...) or a file of X-CLIP weights; from CLIP weights, X-CLIP's additional parts are
# initialised randomly.
_C.MODEL.CLIP = "ViT-B/16"
# Activation in the MLPs that the CLIP weights were trained with: quick_gelu (all of OpenAI's) or
# gelu (most of open_clip's). auto: from the config next to the weights, a TorchScript program, the
# model's name or our checkpoint; otherwise quick_gelu with a warning.
_C.MODEL.CLIP_ACTIVATION = "auto"
# Image tower of stclip: CLIP's (clip) or X-CLIP's (xclip), where the frames of a window exchange
# messages in every block. With xclip MODEL.CLIP may be CLIP or X-CLIP.
_C.MODEL.BACKBONE = "clip"
# With BACKBONE xclip, whether the message layers are trained. They must be if MODEL.CLIP is a CLIP,
# since they are initialised randomly then.
_C.MODEL.TRAIN_MESSAGES = True
# auto (CUDA if there is one), cpu, cuda.
_C.MODEL.DEVICE = "auto"
# fp32, or autocast to bf16 or fp16.
_C.MODEL.PRECISION = "fp32"
# Compute in the ways that are fastest for device and precision. False: by the plain formulas, which
# is slower and rounds differently; to see whether a result depends on it.
_C.MODEL.FAST = True
# Beyond the paper, in tests: the share of the way that the trained weights went in their training
# (WiSE-FT). Less than 1 may cost little on seen classes and gain on unseen ones. Needs a checkpoint
# of this implementation.
_C.MODEL.SCALE = 1.0
# Beyond the paper: texts with one {} each, in which the text encoder reads every name or wording;
# the features are averaged. `action` stands for a built-in set. (): names and wordings alone.
_C.MODEL.TEMPLATES = ()
# Compile the blocks of the image tower with torch.compile: a minute at the start of a run, and
# different rounding. CONTRIBUTING.md explains how to measure whether it is faster.
_C.MODEL.COMPILE = False

# LoRA on the MLPs of the vision blocks. RANK 0: none.
_C.MODEL.LORA = CfgNode()
_C.MODEL.LORA.RANK = 8
_C.MODEL.LORA.ALPHA = 1.0

# Person tokens from the crops. Without them the class token's output is used for every person.
_C.MODEL.PERSON_TOKENS = CfgNode()
_C.MODEL.PERSON_TOKENS.ENABLED = True

# The window of frames around the keyframe. With BACKBONE clip its patches are mixed to context
# tokens; with xclip its frames exchange messages. Without it the context is the keyframe alone.
_C.MODEL.TEMPORAL = CfgNode()
_C.MODEL.TEMPORAL.ENABLED = True
# With BACKBONE xclip, also mix the patches to context tokens before the first block. Unlike the
# messages, this depends on the order of the frames.
_C.MODEL.TEMPORAL.BEFORE_XCLIP = False
_C.MODEL.TEMPORAL.FRAMES = 9
# Distance between frames of the window; 1: consecutive frames.
_C.MODEL.TEMPORAL.STRIDE = 1
# Blocks of self-attention over the frames.
_C.MODEL.TEMPORAL.DEPTH = 1
# Initial standard deviation of the temporal embedding. The reference's 1 is far larger than the
# patch embeddings it is added to; a small model with a short training is better off with 0.01.
_C.MODEL.TEMPORAL.INIT_STD = 1.0

# Context prompting of the class names, after every vision block. Without it they stay CLIP's.
_C.MODEL.PROMPT = CfgNode()
_C.MODEL.PROMPT.ENABLED = True
_C.MODEL.PROMPT.ALPHA = 0.2  # initial value of the learned scale
# Initial standard deviation of the prompts' weights. Their output grows with the width: 0.02 suits
# a width of 512 and leaves almost nothing at 128.
_C.MODEL.PROMPT.INIT_STD = 0.02
# Vision blocks after which the class names are prompted, counted from 1, such as (10, 11, 12).
# (): after every block.
_C.MODEL.PROMPT.LAYERS = ()
# Blocks of cross-attention and MLP in each prompt.
_C.MODEL.PROMPT.DEPTH = 1

# Interest token spotting: each person's class names are prompted only by the tokens that the person
# attends to most. No parameters; needs PERSON_TOKENS and PROMPT.
_C.MODEL.INTEREST_TOKENS = CfgNode()
_C.MODEL.INTEREST_TOKENS.ENABLED = False
# Number of tokens, out of class and patch tokens (197 in ViT-B/16). 0: all. The paper does not give
# it; 20 is a guess.
_C.MODEL.INTEREST_TOKENS.TOP_K = 20
# Whether the person's own token prompts as well; in the paper only context tokens do.
_C.MODEL.INTEREST_TOKENS.INCLUDE_PERSON = False

# X-CLIP as a baseline.
_C.MODEL.XCLIP = CfgNode()
# A clip, in testing and as a training sample. video: a whole video, for videos of one action
# (J-HMDB, Puppet). window: frames around each keyframe, for untrimmed videos (UCF101-24).
_C.MODEL.XCLIP.UNIT = "video"
# Frames of a clip. Of a whole video: the middle frames of that many equal parts.
_C.MODEL.XCLIP.FRAMES = 8
# Distance between frames of a window. Where a window does not fit, the whole video is used.
_C.MODEL.XCLIP.STRIDE = 4

# Cosine similarities are divided by this.
_C.MODEL.HEAD = CfgNode()
_C.MODEL.HEAD.TEMPERATURE = 0.07
# Beyond the paper: how much of the crop's own CLIP feature is added to a person's feature, which is
# the sum of relation token and frame feature. 0: none; 1: as much as of the others.
_C.MODEL.HEAD.CROP_WEIGHT = 0.0
# Beyond the paper: how much of the CLIP feature of the keyframe in which the person is marked is
# added. 0: none, at no cost; otherwise every person costs one more picture in CLIP.
_C.MODEL.HEAD.MARKED_WEIGHT = 0.0
# How a person is marked: outside of the person's box the keyframe is blurred (blur) or has CLIP's
# mean colour (mask).
_C.MODEL.HEAD.MARKED = "blur"

# ---------------------------------------------------------------- data
_C.DATASETS = CfgNode()
# Folder of jhmdb/, ucf24/, ava/, puppet/.
_C.DATASETS.DATA_DIR = "data"
# jhmdb, ucf24, ava, puppet, puppet_crowd, puppet_context, puppet_camera, or a .json file in the
# annotations format (DATA.md).
_C.DATASETS.TRAIN = "jhmdb"
_C.DATASETS.TEST = "jhmdb"
# A detections file to use instead of the dataset's own: .json (COCO-like), .jsonl, or AVA's .csv
# (DATA.md).
_C.DATASETS.DETECTIONS = ""

# The time grid of data in AVA's form; the defaults are AVA's own.
_C.DATASETS.AVA = CfgNode()
# First and last annotated second; rows of other seconds are left out with a warning.
_C.DATASETS.AVA.SECONDS = (902, 1798)
# Second of frame 1, and frames per second.
_C.DATASETS.AVA.START = 900
_C.DATASETS.AVA.FPS = 30

_C.DATALOADER = CfgNode()
_C.DATALOADER.NUM_WORKERS = 2
# Resizing of frames and crops: by pillow (as CLIP and the reference do; published weights were
# trained with it), by torch (faster; a few values differ by 1 of 255, rarely 2), or by the device
# that the model is on (a GPU; a few in 100,000 values differ from pillow's, DATA.md has the
# exceptions; without STORE). Not for X-CLIP's clips (MODEL.NAME xclip), which have their own
# preprocessing.
_C.DATALOADER.RESIZE = "pillow"
# Picture files with more pixels are rejected before decoding; at most 178956970.
_C.DATALOADER.MAX_PIXELS = 67108864
# Folder that caches preprocessed frames and crops; runs may share it. "": no cache. Not for
# X-CLIP's clips (MODEL.NAME xclip).
_C.DATALOADER.STORE = ""
# Largest size of the cache in 10^9 bytes; 0: no limit (DATA.md).
_C.DATALOADER.STORE_GB = 0.0

# ---------------------------------------------------------------- training
_C.SOLVER = CfgNode()
# sgd or adamw.
_C.SOLVER.OPTIMIZER = "sgd"
_C.SOLVER.BASE_LR = 2.5e-4
# With MODEL.NAME xclip: factor on the learning rate of the parts that X-CLIP adds to CLIP.
_C.SOLVER.NEW_LR_FACTOR = 1.0
# With adamw: beta 1 (beta 2 is 0.98).
_C.SOLVER.MOMENTUM = 0.9
# With adamw: not on vectors and positional embeddings.
_C.SOLVER.WEIGHT_DECAY = 1e-7
_C.SOLVER.MAX_ITER = 3000
# step (times GAMMA at each of STEPS) or cosine (half a period, to zero at MAX_ITER). The released
# steps lie beyond MAX_ITER, so the rate is constant after the warm-up.
_C.SOLVER.SCHEDULE = "step"
_C.SOLVER.STEPS = (20000, 25000)
_C.SOLVER.GAMMA = 0.1
_C.SOLVER.WARMUP_ON = True
_C.SOLVER.WARMUP_FACTOR = 0.25
_C.SOLVER.WARMUP_ITERS = 800
# Keyframes per iteration, over all processes and accumulation steps; videos with XCLIP.UNIT video.
_C.SOLVER.VIDEOS_PER_BATCH = 8
# Number of parts in which an iteration's keyframes pass through the model.
_C.SOLVER.ACCUMULATION_STEPS = 1
# Keep only the input of each block of the image tower and of the prompts, and recompute the rest in
# the backward pass: the same results with less memory, a third to a half slower on a CPU.
_C.SOLVER.ACTIVATION_CHECKPOINTING = False
# Largest number of ground-truth boxes per keyframe; sampled each time it is used.
_C.SOLVER.MAX_PERSONS = 10
# Exponent of the focal loss; 0: cross entropy.
_C.SOLVER.FOCAL_GAMMA = 2.0
# Iterations between checkpoints, validations (0: none) and log lines.
_C.SOLVER.CHECKPOINT_PERIOD = 500
_C.SOLVER.EVAL_PERIOD = 0
_C.SOLVER.LOG_PERIOD = 20

# ---------------------------------------------------------------- testing
_C.TEST = CfgNode()
# Beyond the paper: a label file with names that take part in the softmax and are never reported,
# such as "standing", for people who do nothing of the vocabulary. TRAIN_LABEL: the names that were
# trained on, but for those that are tested. "": none. Not with ALL_GROUP.
_C.TEST.NONE_OF = ""
# detected, or ground_truth (detector score 1).
_C.TEST.BOXES = "detected"
# Person boxes with a lower detector score are not used.
_C.TEST.BOX_THRESH = 0.0
# Number of boxes per keyframe, the first ones in the detections file. 0: all.
_C.TEST.MAX_PERSONS = 3
# Result rows need a score above this.
_C.TEST.ACTION_THRESH = 0.0
# Average the class scores, before they are multiplied by the detector's: not at all (none), over
# all persons of a video (video, "soft voting"), or along the track of each person (track).
_C.TEST.VOTING = "none"
# With track: seconds that are averaged, half of them to each side. More than a video has: whole
# tracks. 2 is all or most of a clip of J-HMDB, and on AVA a keyframe and its two neighbours.
_C.TEST.VOTING_WINDOW = 2.0
# The paper's name of VOTING video. Of the two keys, one that is set changes the other.
_C.TEST.SINGLE_ACTION = False
# Score all classes of ALL_LABEL, not only TEST_LABEL's. Reports the frame mAP of TEST_LABEL's
# classes, of the others and of all, and the harmonic mean of the first two.
_C.TEST.GENERALIZED = False
# IoU thresholds of the frame mAP.
_C.TEST.IOU_THRESHOLDS = (0.2, 0.5, 0.75)
# Consecutive keyframes of a video per forward pass; all of them with XCLIP.UNIT video.
_C.TEST.VIDEOS_PER_BATCH = 8


def get_cfg_defaults() -> CfgNode:
    """A fresh, unfrozen config with every key at its default."""
    return _C.clone()
