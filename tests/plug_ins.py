"""A user's own students, outside the package: one that keeps the contract, and some that break it."""

import gzip
import json

import numpy as np
import torch


class WordScores:
    """The score of a word is the mean of the logits of the rows that contain it; the logits of a text are the mean of its words' scores."""

    def __init__(self, classes, pairs, smoothing=1.0):
        if smoothing < 0:
            raise ValueError(f"smoothing: {smoothing}: must not be negative")
        self.classes, self.pairs, self.smoothing, self.scores = classes, pairs, smoothing, {}

    def fit(self, training, validation):
        sums = {}
        for text, logits, weight in zip(
            self._texts(training.sentence1, training.sentence2), training.logits, training.weights, strict=True
        ):
            for word in text:
                total, count = sums.get(word, (np.zeros(self.classes), self.smoothing))
                sums[word] = total + weight * logits, count + weight
        self.scores = {word: (total / count).tolist() for word, (total, count) in sums.items()}

    def predict_logits(self, sentence1, sentence2):
        nothing = [0.0] * self.classes
        texts = self._texts(sentence1, sentence2)
        return np.array(
            [np.mean([self.scores.get(word, nothing) for word in text] or [nothing], axis=0) for text in texts]
        )

    def _texts(self, sentence1, sentence2):
        assert (sentence2 is not None) == self.pairs
        firsts = [text.split() for text in sentence1]
        if sentence2 is None:
            return firsts
        return [
            [*first, *(f"2:{word}" for word in second.split())] for first, second in zip(firsts, sentence2, strict=True)
        ]

    def save(self, folder):
        (folder / "scores.json").write_text(json.dumps(self.scores))

    def load(self, folder):
        self.scores = json.loads((folder / "scores.json").read_text())

    def parameter_count(self):
        return len(self.scores) * self.classes


class WrongFit(WordScores):
    def fit(self, training):
        pass


class WrongShape(WordScores):
    def predict_logits(self, sentence1, sentence2):
        return super().predict_logits(sentence1, sentence2)[:, :1]


class NotANumber(WordScores):
    def predict_logits(self, sentence1, sentence2):
        return super().predict_logits(sentence1, sentence2) * np.nan


class Pickles(WordScores):
    def save(self, folder):
        (folder / "scores.bin").write_bytes(b"\x80\x04K\x01.")


class SavesNothing(WordScores):
    def save(self, folder):
        pass


class SavesCard(WordScores):
    def save(self, folder):
        super().save(folder)
        (folder / "README.md").write_text("mine")


class SavesObjects(WordScores):
    def save(self, folder):
        np.savez(folder / "scores.npz", scores=np.array([self.scores], object))


class SavesTorch(WordScores):
    def save(self, folder):
        torch.save(self.scores, folder / "scores.dat")


class SavesGzip(WordScores):
    def save(self, folder):
        with gzip.open(folder / "scores.gz", "wb") as file:
            file.write(b"\x80\x04K\x01.")


class LoadsNothing(WordScores):
    def load(self, folder):
        pass


class AsyncFit(WordScores):
    async def fit(self, training, validation):
        pass


class NegativeCount(WordScores):
    def parameter_count(self):
        return -1


class NoCount(WordScores):
    def parameter_count(self):
        return "many"


class NoFit:
    predict_logits = save = load = parameter_count = print


class Module(torch.nn.Module):
    """Keeps the contract of modules."""

    def __init__(self, embeddings, classes, pairs):
        super().__init__()
        self.words = torch.nn.Embedding.from_pretrained(embeddings, freeze=False, padding_idx=0)
        self.logits = torch.nn.Linear(embeddings.shape[1], classes)

    def forward(self, batch):
        return self.logits(self.words(batch.ids1).sum(1) / batch.lengths1[:, None])


class MeanOverPadding(Module):
    def forward(self, batch):
        return self.logits(self.words(batch.ids1).mean(1))


class MaxOverPadding(Module):
    def forward(self, batch):
        return self.logits(self.words(batch.ids1).amax(1))


class SumOverTrainedPadding(Module):
    def __init__(self, embeddings, classes, pairs):
        super().__init__(embeddings, classes, pairs)
        self.words = torch.nn.Embedding.from_pretrained(embeddings, freeze=False)


class BatchMean(Module):
    def forward(self, batch):
        logits = super().forward(batch)
        return logits - logits.mean(0)


class RandomLogits(Module):
    def forward(self, batch):
        return torch.nn.functional.dropout(super().forward(batch), training=True)


class Complex(Module):
    def forward(self, batch):
        return super().forward(batch) + 0j


class Lazy(Module):
    def __init__(self, embeddings, classes, pairs):
        super().__init__(embeddings, classes, pairs)
        self.logits = torch.nn.LazyLinear(classes)


class Brain(Module):
    """Return logits of low precision."""

    def forward(self, batch):
        return super().forward(batch).bfloat16()


class Double(Module):
    def forward(self, batch):
        return super().forward(batch).double()


class AsyncForward(Module):
    async def forward(self, batch):
        return super().forward(batch)


class TwoArguments(Module):
    def forward(self, ids, lengths):
        return self.logits(self.words(ids).sum(1))


class Nothing(Module):
    def forward(self, batch):
        super().forward(batch)


class OneColumn(Module):
    def forward(self, batch):
        return super().forward(batch)[:, :1]


class FirstNaN(Module):
    def forward(self, batch):
        return super().forward(batch) * float("nan")


class Untrainable(Module):
    def forward(self, batch):
        return super().forward(batch).detach()


class NoSuper(torch.nn.Module):
    def __init__(self, embeddings, classes, pairs):
        self.logits = torch.nn.Linear(embeddings.shape[1], classes)


class Frozen(Module):
    def __init__(self, embeddings, classes, pairs):
        super().__init__(embeddings, classes, pairs)
        self.requires_grad_(False)


class NoParameters(torch.nn.Module):
    def __init__(self, embeddings, classes, pairs):
        super().__init__()


class ForwardFails(Module):
    def forward(self, batch):
        return self.logits(self.words(batch.ids1)) @ torch.zeros(7, 7)


class ForwardExits(Module):
    def forward(self, batch):
        raise SystemExit


class GradientFails(Module):
    def forward(self, batch):
        hidden = self.words(batch.ids1).sum(1).exp()
        found = self.logits(hidden)
        hidden += 1
        return found


class NaNInEvaluation(Module):
    def forward(self, batch):
        found = super().forward(batch)
        return found if self.training else found * float("nan")


class FitFails(WordScores):
    def fit(self, training, validation):
        return training.logits[10**9]


class PredictFails(WordScores):
    def predict_logits(self, sentence1, sentence2):
        raise ValueError("first line\nsecond line")


class PredictsNothing(WordScores):
    def predict_logits(self, sentence1, sentence2):
        pass


class SaveFails(WordScores):
    def save(self, folder):
        json.dumps(self)


class LoadFails(WordScores):
    def load(self, folder):
        return json.loads("")


class CountFails(WordScores):
    def parameter_count(self):
        return len(None)


class BothSides(Module):
    """Read both sentences of a pair, with a last layer that starts at zero."""

    def __init__(self, embeddings, classes, pairs):
        super().__init__(embeddings, classes, pairs)
        torch.nn.init.zeros_(self.logits.weight)

    def forward(self, batch):
        both = self.words(batch.ids1).sum(1) / batch.lengths1[:, None]
        return self.logits(both - self.words(batch.ids2).sum(1) / batch.lengths2[:, None])


class SecondSide(Module):
    def forward(self, batch):
        return self.logits(self.words(batch.ids2).sum(1) / batch.lengths2[:, None])


class FirstSideFitted(WordScores):
    def _texts(self, sentence1, sentence2):
        return [text.split() for text in sentence1]
