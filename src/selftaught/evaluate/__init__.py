"""From an encoder to numbers that can be trusted: each with its protocol, beside honest floors.

print(evaluate.compare(encoder, "train/", "test/").verdict)

train = evaluate.embed(encoder, "train/")            # features, labels; one pass serves all
evaluate.knn(train, evaluate.embed(encoder, "test/"), k=20)
evaluate.probe((x, y), (x_test, y_test))             # arrays of your own
evaluate.knn("train/", "test/", encoder="vit_small_patch16_224")    # a timm model
evaluate.compare(module, "train/", probes=["linear", "lowshot"])    # any torch module
"""

from typing import TYPE_CHECKING

from selftaught.lazily import lazily

if TYPE_CHECKING:
    from selftaught.evaluate.attention import attentive as attentive
    from selftaught.evaluate.classifiers import linear as linear
    from selftaught.evaluate.classifiers import logistic as logistic
    from selftaught.evaluate.clusters import cluster as cluster
    from selftaught.evaluate.commands import embed_command as embed_command
    from selftaught.evaluate.comparing import compare as compare
    from selftaught.evaluate.features import Embeddings as Embeddings
    from selftaught.evaluate.features import changed_features as changed_features
    from selftaught.evaluate.features import embed as embed
    from selftaught.evaluate.features import pixels as pixels
    from selftaught.evaluate.features import untrained as untrained
    from selftaught.evaluate.few_labels import Saving as Saving
    from selftaught.evaluate.few_labels import lowshot as lowshot
    from selftaught.evaluate.few_labels import savings as savings
    from selftaught.evaluate.finding import copies as copies
    from selftaught.evaluate.finding import retrieval as retrieval
    from selftaught.evaluate.floors import Comparison as Comparison
    from selftaught.evaluate.grouped import worst_group as worst_group
    from selftaught.evaluate.image.corrupted import robustness as robustness
    from selftaught.evaluate.image.places import segment as segment
    from selftaught.evaluate.image.places import segments as segments
    from selftaught.evaluate.mislabeled import noisy_labels as noisy_labels
    from selftaught.evaluate.scores import Score as Score
    from selftaught.evaluate.scores import knn as knn
    from selftaught.evaluate.scores import probe as probe

__all__, __getattr__ = lazily(__name__, __file__)
