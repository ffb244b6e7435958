"""Published zero-shot results, as facts to compare with. They were not reproduced here.

Source: the results tables on the project page of ST-CLIP (Huang, Chen, Lai, WACV 2025;
github.com/webber2933/ST-CLIP-project-page, static/images/ZS_*_evaluation.svg), pictures that were
transcribed by eye. Frame mAP at IoU 0.5 in percent; ViT-B/16 on J-HMDB and UCF101-24, ViT-L/14 on
AVA. Columns: the splits, avg, H, avg*, H* (see ``paper_table``).
"""

# Dataset -> whether with the single-action assumption -> method -> columns.
PUBLISHED: dict[str, dict[bool, dict[str, tuple[float, ...]]]] = {
    "jhmdb": {
        False: {
            "baseline": (64.63, 71.04, 82.13, 75.88, 73.42, 65.45, 81.21, 71.82),
            "ViCLIP": (52.29, 72.29, 53.59, 70.58, 62.19, 68.03, 68.15, 74.05),
            "iCLIP": (66.53, 69.99, 82.88, 71.84, 72.81, 74.47, 79.01, 81.09),
            "ST-CLIP": (74.55, 74.97, 83.59, 83.22, 79.08, 77.65, 85.53, 84.32),
        },
        True: {
            "ActionCLIP": (69.18, 75.28, 77.11, 76.55, 74.53, 75.82, 82.07, 83.25),
            "A5": (50.92, 66.06, 69.07, 60.21, 61.57, 68.94, 67.39, 75.34),
            "X-CLIP": (72.91, 72.62, 80.02, 77.78, 75.83, 77.13, 83.11, 84.34),
            "Vita-CLIP": (68.60, 82.35, 84.95, 80.19, 79.02, 80.46, 86.02, 87.49),
            "ST-CLIP": (79.62, 78.70, 85.84, 87.19, 82.84, 80.96, 90.12, 88.48),
        },
    },
    "ucf24": {
        False: {
            "baseline": (48.37, 52.84, 39.76, 51.92, 48.22, 49.00, 90.49, 82.45),
            "ViCLIP": (41.37, 43.93, 24.14, 34.04, 35.87, 43.72, 63.07, 72.50),
            "iCLIP": (50.34, 52.75, 39.73, 47.95, 47.69, 54.46, 85.47, 90.35),
            "ST-CLIP": (49.09, 54.95, 42.05, 53.92, 50.00, 54.41, 91.80, 91.34),
        },
        True: {
            "ActionCLIP": (52.64, 55.01, 38.04, 51.84, 49.38, 55.36, 89.72, 92.91),
            "A5": (46.78, 47.36, 41.23, 53.18, 47.14, 54.24, 85.60, 90.86),
            "X-CLIP": (50.10, 56.94, 44.52, 55.35, 51.73, 56.96, 94.12, 95.30),
            "Vita-CLIP": (52.52, 57.22, 45.12, 57.32, 53.05, 57.65, 96.57, 95.94),
            "ST-CLIP": (51.36, 56.30, 43.12, 54.52, 51.33, 55.94, 95.02, 94.75),
        },
    },
    "ava": {
        False: {
            "baseline": (8.67, 8.57, 2.77, 6.67, 7.38, 10.09, 10.58),
            "baseline, person crop": (8.22, 5.05, 3.04, 5.44, 6.42, 7.55, 8.63),
            "iCLIP": (4.04, 9.08, 1.91, 5.01, 7.59, 6.91, 10.37),
            "Vita-CLIP": (4.25, 4.29, 0.64, 3.06, 4.49, 10.45, 13.94),
            "ST-CLIP": (12.85, 10.17, 4.01, 9.01, 11.41, 11.76, 15.05),
        },
    },
}
