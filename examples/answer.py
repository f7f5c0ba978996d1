"""A released model answers by itself: python examples/answer.py FOLDER, where FOLDER is the folder of a release.

It needs numpy, scipy, pyproj and ONNX Runtime, and no home: the folder may have been copied anywhere.
"""

import sys

from heimdall_assets.inference import Predictor, Receiver

predictor = Predictor(sys.argv[1])  # opened once; it answers any number of times

# What four receivers measured of one transmission: when it arrived, by clocks that are right to some 80 ns.
ARRIVALS_NS = {
    "Torino": (45.044, 7.672, 1_764_600_000_000_207_639),
    "Genova": (44.395, 8.956, 1_764_600_000_000_245_504),
    "Milano": (45.478, 9.123, 1_764_600_000_000_263_536),
    "Alba": (44.690, 8.030, 1_764_600_000_000_146_903),
}
receivers = [
    Receiver(
        name=name,
        latitude=latitude,
        longitude=longitude,
        frequency_hz=145.5e6,
        clock_class="gnss_calibrated",
        arrival_unix_ns=arrival_ns,
        arrival_sigma_s=50e-9,
    )
    for name, (latitude, longitude, arrival_ns) in ARRIVALS_NS.items()
]

answer = predictor.locate(receivers)
ellipse = answer.estimate.ellipse(0.90)
print(f"{answer.version}: {answer.estimate.latitude:.4f}, {answer.estimate.longitude:.4f}")
print(f"within {ellipse.semi_major_m:.0f} m by {ellipse.semi_minor_m:.0f} m, 90 %")
for place in answer.estimate.alternatives:
    print(f"or {place.estimate.latitude:.4f}, {place.estimate.longitude:.4f} ({place.weight:.0%})")
for line in [*answer.refused, *answer.remarks]:
    print(line)
