import json
import os
import signal
import threading

import numpy as np
import pytest
import torch

from ubend.errors import Stopped, TrainingError
from ubend.run.stopping import EVERY, Signals, Watch
from ubend.run.training import train


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_at_once(number):
    before = signal.getsignal(number)
    with pytest.raises(Stopped) as e, Signals():
        os.kill(os.getpid(), number)
    assert e.value.signal == number
    assert signal.getsignal(number) is before


def test_a_deferred_signal_is_remembered_and_a_second_ctrl_c_stops():
    with Signals() as signals, signals.deferring():
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.asked == signal.SIGTERM
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Stopped):
            os.kill(os.getpid(), signal.SIGINT)


def test_in_a_thread_nothing_is_caught():
    before = signal.getsignal(signal.SIGINT)
    found = []

    def work():
        with Signals() as signals:
            found.append((signals.asked, signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [(0, before)]


def look(watch, scores, labels, energies=None, share=lambda step, of: step / of, steps=600):
    """Show the same scores and labels for all steps of a run."""
    for step in range(1, steps + 1):
        energy = 1 / step if energies is None else energies(step)
        if step % EVERY == 0 and (said := watch.look(step, share(step, steps), energy, scores, labels)):
            raise TrainingError(f"step {step}: {said}")


def two_classes(p):
    """Scores of a map of foreground probabilities."""
    logit = torch.logit(torch.as_tensor(p, dtype=torch.float32))
    return torch.stack((torch.zeros_like(logit), logit))[None]


LABELS = torch.zeros(1, 8, 8, dtype=torch.int64)
LABELS[:, 2:5, 2:5] = 1
GOOD = two_classes(0.1 + 0.8 * LABELS[0])


def test_a_good_run_goes_on():
    look(Watch(["background", "objects"]), GOOD, LABELS)


def test_an_energy_that_does_not_fall():
    with pytest.raises(TrainingError, match=r"step 300: the energy does not fall, 0\.7 over the first .* 0\.71 over"):
        look(Watch(["background", "objects"]), GOOD, LABELS, lambda step: 0.7 if step < 200 else 0.71)
    with pytest.raises(TrainingError, match=r"step 540: the energy does not fall, 0\.7 over the first .* 0\.7 over"):
        look(Watch(["background", "objects"]), GOOD, LABELS, lambda step: 0.7)


def test_a_little_noise_is_no_rise():
    noise = np.random.default_rng(0).normal(1, 0.1, 601)
    look(
        Watch(["background", "objects"]),
        GOOD,
        LABELS,
        lambda step: noise[step],
        share=lambda step, of: 0.89 * step / of,
    )


def test_the_same_everywhere():
    same = two_classes(torch.full((8, 8), 0.3))
    with pytest.raises(TrainingError, match="step 300: the network says background everywhere, whatever the image"):
        look(Watch(["background", "objects"]), same, LABELS)


def test_a_class_that_is_never_said():
    scores = torch.cat((GOOD, torch.full((1, 1, 8, 8), -9.0)), 1)
    labels = LABELS.clone()
    labels[:, 6] = 2
    with pytest.raises(TrainingError, match=r"step 450: the network never says label 7 \(12\.5% of the labelled"):
        look(Watch(["label 0", "label 5", "label 7"]), scores, labels)


def test_a_rare_class_may_stay_unsaid():
    scores = torch.cat((GOOD, torch.full((1, 1, 8, 8), -9.0)), 1).repeat(1, 1, 4, 4)
    labels = LABELS.repeat(1, 4, 4)
    labels[0, 0, 0] = 2
    look(Watch(["label 0", "label 5", "label 7"]), scores, labels)


def test_where_only_one_class_is_shown_the_same_everywhere_is_right():
    sure = two_classes(torch.full((8, 8), 0.001))
    look(Watch(["background", "objects"]), sure, torch.zeros_like(LABELS))


def test_a_watch_goes_on_where_it_was():
    same = two_classes(torch.full((8, 8), 0.3))
    one, two = Watch(["background", "objects"]), Watch(["background", "objects"])
    look(one, same, LABELS, share=lambda *_: 0.4, steps=400)
    two.restore(json.loads(json.dumps(one.to_dict())))
    assert "says background everywhere" in two.look(405, 0.5, 0.1, same, LABELS)
    assert one.to_dict()["first"] == two.to_dict()["first"]


def test_unlabelled_pixels_do_not_count():
    labels = torch.where(LABELS == 1, -1, LABELS)
    labels[0, 0, 0] = 1
    never = two_classes(0.1 + 0.3 * LABELS[0])
    with pytest.raises(TrainingError, match="never says objects"):
        look(Watch(["background", "objects"]), never, labels)


def test_short_runs_and_first_halves_are_not_judged():
    same = two_classes(torch.full((8, 8), 0.3))
    look(Watch(["background", "objects"]), same, LABELS, steps=299)
    look(Watch(["background", "objects"]), same, LABELS, share=lambda step, of: 0.49 * step / of)


def test_labels_that_have_nothing_to_do_with_the_images(tiny):
    """A real run: noise, and labels that the network cannot know."""
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (64, 64), np.uint8) for _ in range(2)]
    labels = [np.where(rng.random((64, 64)) < 0.03, 255, 0).astype(np.uint8) for _ in range(2)]
    with pytest.raises(TrainingError, match=r"never says label 255|says label 0 everywhere"):
        train(images, labels, recipe=tiny, steps=320, device="cpu")
