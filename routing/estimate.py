"""Predictions: time to first token, gap between tokens, output length, bytes per token. Reading never writes.

Time to first token. A request costs a backend its uncached prompt tokens over the prefill rate, plus an overhead that
has nothing to do with its size: queues we cannot see, scheduling, a slow disk. Only the overhead is learned, so a
long prompt does not make a backend look slow. The estimate is a peak-EWMA: it jumps up at once to an observation that
is slow for this backend, and the excess over the running mean halves every ten seconds by itself and shrinks with every
better observation. A failure adds a penalty to the excess, so a backend that fails fast never looks fast (rate is not
latency), and one failure in a thousand is forgotten as fast as a thousand successes come.

A figure that keeps requests away is never measured again by itself, so a site that was slow once would stay out for
ever. Hence a `Standing` beside each figure of time: what it is while the site is well, and since when nobody has
measured it. A site not measured for a while may be given one request at its standing (`decide` draws it); two good
ones in a row, and what was learned while it was slow is forgotten.

Lengths and ratios are means with forgetting, per key. Every table is bounded: the key that was written least recently
goes.
"""

from math import exp2, inf
from typing import Generic, TypeVar

ITL_TOKENS_MIN = 8  # a shorter stream measures the network's jitter
PEAK_HALF_LIFE_S = 10.0  # as long as the ejection window: an excess fades when its failures no longer count
GAIN = 1 / 16  # weight of a new observation in a settled mean of times: a site changes within minutes
LENGTH_GAIN = 1 / 128  # lengths differ by their own size from request to request, and their mean hardly moves
PENALTY_S = 5.0  # more than a slow answer that succeeds
PENALTIES_MAX = 12  # as many reach the most
PENALTY_S_MAX = 60.0  # the default deadline of the first content: nothing that serves is slower

TRIAL_S = 5.0  # unmeasured for so long, a site may be tried; as often as one that is out is probed
TRIALS_GOOD = 2  # as many as probes that end an ejection
WELL_FOLLOWS_S = 600.0  # a site that stays slower is as well as it gets: rather hours of trials than none
WELL_STEP_S = 1.0  # the most that one measurement counts for in that time
ABOUT_WELL = 1.25
SLOW_FACTOR = 2.0  # beyond so many times its standing, and a hundredth of a second, a site is slow
SLOW_S = 0.01

BYTES_PER_OUTPUT_TOKEN = 350.0  # an OpenAI-style event with all headers, one token each
BYTES_PER_WHOLE_TOKEN = 6.0  # of an answer that is not streamed: its text, escaped
BYTES_PER_INPUT_TOKEN = 4.0
OUTPUT_TOKENS = 256.0  # of an answer nobody has seen the like of

LENGTH_KEYS_MAX = 8192  # about 2 MB: tenants x models x a dozen sizes in use
RATIO_KEYS_MAX = 1024
RATIO_TOKENS_MAX = 1_000_000.0  # beyond it both sums are halved, so that a ratio follows a change
EXACT_EVENTS_MIN = 1000  # evidence that a backend never puts two tokens into one event
ABSORBED_MAX = 64  # observations at once; behind four times 1 / GAIN of them nothing else is left in a mean
SHRINK = 4.0  # how many observations the wider mean counts for

Key = TypeVar("Key")
Value = TypeVar("Value")


class Recent(Generic[Key, Value]):
    """A mapping of at most `keys_max` keys; the one written least recently goes. Reading does not reorder."""

    __slots__ = ("_keys_max", "values")

    def __init__(self, keys_max: int) -> None:
        self._keys_max = keys_max
        self.values: dict[Key, Value] = {}  # for reading

    def write(self, key: Key, value: Value) -> None:
        values = self.values
        values.pop(key, None)
        values[key] = value
        if len(values) > self._keys_max:
            del values[next(iter(values))]


class Mean:
    """A mean that weighs its first observations equally and then forgets; `value` is the prior before the first.

    What this worker observed is kept as a sum as well, for the others: they `absorb` what it grew by.
    """

    __slots__ = ("_gain", "count", "seen", "seen_sum", "value")

    def __init__(self, prior: float, gain: float = GAIN) -> None:
        self.value = prior
        self.count = 0
        self.seen = 0  # by this worker, ever
        self.seen_sum = 0.0
        self._gain = gain

    def adopt(self, prior: float) -> None:
        """A new prior from a reload; what was measured beats it."""
        if self.count == 0:
            self.value = prior

    def observe(self, value: float) -> None:
        self.count += 1
        self.seen += 1
        self.seen_sum += value
        self.value += (value - self.value) * max(1 / self.count, self._gain)

    def absorb(self, count: int, mean: float) -> None:
        """So many observations of another worker, at their mean; of very many, as many as are remembered."""
        for _ in range(min(count, ABSORBED_MAX)):
            self.count += 1
            self.value += (mean - self.value) * max(1 / self.count, self._gain)


class Standing:
    """What a figure of time is while its site is well, and when it may be believed to be so again.

    Better measurements are followed at once, worse ones so slowly that a slow hour is not forgotten as normal.
    """

    __slots__ = ("_good", "_good_sum", "_measured_at", "_trial_from", "_trial_s", "slow", "trial_at", "well")

    def __init__(self, trial_s: float) -> None:
        self._trial_s = trial_s
        self._measured_at = -inf
        self._trial_from = inf  # when the first trial was sent that nothing has contradicted since
        self._good = 0
        self._good_sum = 0.0
        self.well = 0.0
        self.slow = inf  # beyond it the site is slow
        self.trial_at = inf  # from here on the next request may be a trial

    def observe(self, value: float, level: float, sent_at: float, now: float) -> float | None:
        """A measurement of a request sent then, where `level` was expected. What it is from now on, if the site has
        come back."""
        trial = sent_at >= self._trial_from
        if self.slow == inf:
            self._set_well(value)
        elif value < self.well:
            self._set_well(self.well + (value - self.well) * GAIN)
        elif not trial:  # trials are too few to say what is normal
            share = min(max(now - self._measured_at, 0.0), WELL_STEP_S) / WELL_FOLLOWS_S
            self._set_well(self.well + (value - self.well) * share)
        if trial:
            return self._judge(value, level, sent_at, now)
        if self._trial_from == inf:
            self.doubt(sent_at, now)
        return None

    def is_trial(self, sent_at: float) -> bool:
        """Whether a request sent then tells if the site has come back."""
        return sent_at >= self._trial_from

    def doubt(self, sent_at: float, now: float) -> None:
        """What is known is of a request sent then: no trial for a while."""
        self._measured_at = now
        self._good = 0
        self._good_sum = 0.0
        self._trial_from = inf
        trial_at = sent_at + self._trial_s
        if self.trial_at == inf or trial_at > self.trial_at:
            self.trial_at = trial_at

    def taken(self, now: float) -> None:
        """A request was sent: one trial at a time."""
        if now >= self.trial_at:
            self.trial_at = now + self._trial_s

    def tried(self, now: float) -> None:
        """A request is sent as a trial: what is known would not have brought it here."""
        self._trial_from = min(self._trial_from, now)

    def _judge(self, value: float, level: float, sent_at: float, now: float) -> float | None:
        """A trial is good if it is nearer to the standing than to what keeps the site out; nothing keeps one out that
        is about as well as ever."""
        if value > (self.well + level) / 2 or level < self.well * ABOUT_WELL:
            self.doubt(sent_at, now)
            return None
        self._good += 1
        self._good_sum += value
        if self._good < TRIALS_GOOD:
            self.trial_at = now  # the next one may follow at once
            return None
        returned = self._good_sum / self._good
        self.doubt(sent_at, now)
        return returned

    def _set_well(self, value: float) -> None:
        self.well = value
        self.slow = value * SLOW_FACTOR + SLOW_S


class TtftEstimate:
    """Seconds from sending a request to its first content event, network and our own queueing left out."""

    __slots__ = ("_excess_at", "excess_s", "mean_s", "overhead", "penalties", "prefill_tokens_per_s", "standing")

    def __init__(self, prefill_tokens_per_s: float, trial_s: float = TRIAL_S) -> None:
        self.prefill_tokens_per_s = prefill_tokens_per_s
        self.standing = Standing(trial_s)
        self.overhead = Mean(0.0)
        self.mean_s = 0.0  # of the overhead, and all of it where there is no excess
        self.penalties = 0  # by this worker, ever
        self.excess_s = 0.0  # over the mean, when it was last set
        self._excess_at = 0.0

    def overhead_s(self, now: float) -> float:
        age_s = now - self._excess_at
        if age_s <= 0.0:
            return self.mean_s + self.excess_s
        return self.mean_s + self.excess_s * exp2(-age_s / PEAK_HALF_LIFE_S)

    def predict(self, fresh_tokens: float, now: float) -> float:
        return fresh_tokens / self.prefill_tokens_per_s + self.overhead_s(now)

    def observe(
        self, ttft_s: float, fresh_tokens: float, now: float, known_s: float = 0.0, sent_at: float | None = None
    ) -> None:
        """`known_s`: what of it the decision had already put down to the link and to the queue beyond the slots.
        `sent_at`: of a sample that is told later than at its first content."""
        sample_s = max(ttft_s - known_s - fresh_tokens / self.prefill_tokens_per_s, 0.0)
        level_s = self.overhead_s(now)
        level_s = self._level(sample_s, level_s, now - ttft_s if sent_at is None else sent_at, now)
        self.overhead.observe(sample_s)
        self.mean_s = self.overhead.value
        self._set_excess(level_s - self.mean_s, now)

    def absorb(self, count: int, overhead_s: float, penalties: int, now: float) -> None:
        """What another worker observed just now: so many samples, at their mean, and failures."""
        level_s = self.overhead_s(now)
        for _ in range(min(count, ABSORBED_MAX)):
            level_s = self._level(overhead_s, level_s, now, now)
        self.overhead.absorb(count, overhead_s)
        self.mean_s = self.overhead.value
        self._set_excess(level_s - self.mean_s, now)
        for _ in range(min(penalties, PENALTIES_MAX)):
            self._penalise(now)

    def _level(self, sample_s: float, level_s: float, sent_at: float, now: float) -> float:
        """The estimate after a sample; a site that has come back also gets a new mean."""
        returned_s = self.standing.observe(sample_s, level_s, sent_at, now)
        if returned_s is not None:
            self.overhead.value = level_s = returned_s
        if sample_s < level_s:
            return level_s + (sample_s - level_s) * GAIN
        # Below what is slow a worse observation is noise, and its part in the mean is enough.
        return sample_s if sample_s > self.standing.slow else level_s

    def overdue(self, waited_s: float, fresh_tokens: float, now: float, known_s: float = 0.0) -> None:
        """A request has waited for so long without an answer: no observation, but it will be no less."""
        sample_s = waited_s - known_s - fresh_tokens / self.prefill_tokens_per_s
        if sample_s > self.overhead_s(now):
            self._set_excess(sample_s - self.mean_s, now)
            self.standing.doubt(now - waited_s, now)

    def served(self, sent_at: float, now: float) -> None:
        """A plain answer came. It does not tell when it began, but that a site tried after failures does not fail."""
        standing = self.standing
        if standing.is_trial(sent_at):
            level_s = self.overhead_s(now)
            if standing.observe(min(standing.well, level_s), level_s, sent_at, now) is not None:
                self._set_excess(0.0, now)

    def penalise(self, now: float) -> None:
        """An attempt failed. The time it took is no observation: failing is quick."""
        self.penalties += 1
        self._penalise(now)

    def _penalise(self, now: float) -> None:
        self._set_excess(min(self.overhead_s(now) - self.mean_s + PENALTY_S, PENALTY_S_MAX), now)
        self.standing.doubt(now, now)

    def _set_excess(self, excess_s: float, now: float) -> None:
        self.excess_s = excess_s if excess_s > 1e-6 else 0.0  # below a microsecond it only costs a power per reading
        self._excess_at = now


class ItlEstimate(Mean):
    """Seconds between two output tokens of one stream; `value` is the prediction."""

    __slots__ = ("standing",)

    def __init__(self, prior: float, trial_s: float = TRIAL_S) -> None:
        super().__init__(prior)
        self.standing = Standing(trial_s)

    def observe_stream(self, stream_s: float, output_tokens: int, sent_at: float, now: float) -> None:
        """`stream_s` from the first content event to the last, of an answer of that many tokens, asked for then."""
        if output_tokens < ITL_TOKENS_MIN:
            return
        itl_s = stream_s / (output_tokens - 1)
        returned_s = self.standing.observe(itl_s, self.value, sent_at, now)
        if returned_s is not None:
            self.value = returned_s
        self.observe(itl_s)


class RatioEstimate:
    """Output tokens per content event of one backend, from whole answers with plausible usage."""

    __slots__ = ("_always_one", "_events", "_events_seen", "_tokens", "tokens_per_event_max")

    def __init__(self, tokens_per_event_max: int) -> None:
        self.tokens_per_event_max = tokens_per_event_max
        self._always_one = True
        self._events_seen = 0
        self._events = 0.0
        self._tokens = 0.0

    @property
    def value(self) -> float:
        if self.tokens_per_event_max == 1 or self._events == 0.0:
            return 1.0
        return min(max(self._tokens / self._events, 1.0), float(self.tokens_per_event_max))

    @property
    def exact(self) -> bool:
        """An event is exactly one token: by configuration, or by evidence without a single exception."""
        if self.tokens_per_event_max == 1:
            return True
        return self._always_one and self._events_seen >= EXACT_EVENTS_MIN

    def observe(self, tokens: int, events: int) -> None:
        if events <= 0:
            return
        self._always_one = self._always_one and tokens == events
        self._events_seen += events
        if self._events + events > RATIO_TOKENS_MAX:
            self._events /= 2
            self._tokens /= 2
        self._events += events
        self._tokens += tokens


class BytesPerToken:
    """Bytes per token by key: a model for request bodies, (dialect, streamed) for what a backend sends."""

    __slots__ = ("_sums", "ratios")

    def __init__(self, keys_max: int = RATIO_KEYS_MAX) -> None:
        self._sums: Recent[object, tuple[float, float]] = Recent(keys_max)
        self.ratios: dict[object, float] = {}  # of the sums, for reading

    def predict(self, key: object, prior: float) -> float:
        return self.ratios.get(key, prior)

    def observe(self, key: object, size_bytes: int, tokens: int) -> None:
        if tokens <= 0 or size_bytes <= 0:
            return
        known = self._sums.values.get(key)
        bytes_sum, tokens_sum = known if known is not None else (0.0, 0.0)
        if tokens_sum + tokens > RATIO_TOKENS_MAX:
            bytes_sum, tokens_sum = bytes_sum / 2, tokens_sum / 2
        bytes_sum, tokens_sum = bytes_sum + size_bytes, tokens_sum + tokens
        self._sums.write(key, (bytes_sum, tokens_sum))
        self.ratios[key] = bytes_sum / tokens_sum
        if len(self.ratios) > len(self._sums.values):  # the key written least recently went
            self.ratios = {known: self.ratios[known] for known in self._sums.values}


class LengthEstimate:
    """Expected output tokens of a request, by tenant, model and size of the prompt (in powers of two).

    A key with few observations leans on its model's mean, and that on the prior. Lengths are learned per answer, so a
    request for several choices expects as many times the tokens.
    """

    __slots__ = ("_keys", "_models")

    def __init__(self, keys_max: int = LENGTH_KEYS_MAX) -> None:
        self._keys: Recent[tuple[str, str, int], Mean] = Recent(keys_max)
        self._models: Recent[str, Mean] = Recent(RATIO_KEYS_MAX)

    def predict(self, tenant: str, model: str, input_tokens: int, max_tokens: int | None, choices: int = 1) -> float:
        expected = OUTPUT_TOKENS
        for mean in (self._models.values.get(model), self._keys.values.get((tenant, model, input_tokens.bit_length()))):
            if mean is not None:
                weight = mean.count / (mean.count + SHRINK)
                expected += (mean.value - expected) * weight
        if max_tokens is not None:
            expected = min(expected, float(max_tokens))
        return expected * max(choices, 1)

    def observe(self, tenant: str, model: str, input_tokens: int, output_tokens: int, choices: int = 1) -> None:
        length = output_tokens / max(choices, 1)
        _observe(self._models, model, length)
        _observe(self._keys, (tenant, model, input_tokens.bit_length()), length)


def _observe(means: Recent[Key, Mean], key: Key, value: float) -> None:
    mean = means.values.get(key) or Mean(value, LENGTH_GAIN)
    mean.observe(value)
    means.write(key, mean)
