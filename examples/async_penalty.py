"""Slow penalties on an event loop: one asks a knowledge base over HTTP, while another computes on the CPU.

    python examples/async_penalty.py [--steps N] [--seed N]

The model is a classifier of wines in PyTorch. The knowledge base is a small server that this program starts on a free
port. Now and then it answers slowly: then the loss does not wait for it, and the report says so.
"""

import argparse
import asyncio
import json
import logging
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count

try:
    import numpy as np
    import torch
    from scipy.sparse.csgraph import minimum_spanning_tree
    from scipy.spatial.distance import pdist, squareform
    from sklearn.datasets import load_wine
    from sklearn.model_selection import train_test_split

    from xpenalties import Penalty, Pipeline, RegularizedLoss
    from xpenalties.telemetry import LoggingHandler, add_handler, remove_handler
except ModuleNotFoundError as error:
    sys.exit(f'{error.name} is missing: pip install "xpenalties[torch,examples]"')

HIDDEN = 16
LATENCY = 0.02  # seconds that an answer usually takes
STALLED = 3.0  # seconds that a slow answer takes
STALLS_EVERY = 10  # requests
TIMEOUT = 0.5
TARGET_ACCURACY = 0.9

# What the knowledge base knows: the cost of predicting the column's class for a wine of the row's class.
COSTS = [[0.0, 1.0, 3.0], [1.0, 0.0, 1.0], [3.0, 1.0, 0.0]]


@contextmanager
def knowledge_base():
    """Yield the address of a server that answers /costs/0,2,1 with a row of COSTS for each class."""
    requests, stopped = count(1), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            stopped.wait(STALLED if next(requests) % STALLS_EVERY == 0 else LATENCY)
            classes = self.path.rpartition("/")[2].split(",")
            answer = json.dumps([COSTS[int(each)] for each in classes]).encode()
            try:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(answer)
            except OSError:  # the client has closed the connection
                self.close_connection = True

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server.server_address
        finally:
            stopped.set()
            server.shutdown()


async def ask(address, path):
    """Return the server's answer to a GET request. The task may be cancelled at any time."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        header, _, body = (await reader.read()).partition(b"\r\n\r\n")
        if b" 200 " not in header.partition(b"\r\n")[0]:
            raise ConnectionError(f"the knowledge base answered {header.decode()!r}")
        return json.loads(body)
    finally:
        writer.close()


async def expected_cost(inputs):
    """Return the expected cost of the predictions, according to the knowledge base."""
    classes = ",".join(str(each) for each in inputs["classes"].tolist())
    costs = torch.tensor(await ask(inputs["knowledge_base"], f"/costs/{classes}"))
    return (inputs["log_probs"].exp() * costs).sum(dim=-1).mean()


def total_persistence(hidden):
    """Return the mean lifetime of the connected components of a point cloud.

    This is the mean length of the edges in its minimum spanning tree. SciPy finds the tree, and PyTorch differentiates
    the lengths.
    """
    distances = squareform(pdist(hidden.detach().numpy()))
    tree = minimum_spanning_tree(distances)
    a, b = (torch.from_numpy(each.astype(np.int64)) for each in tree.nonzero())
    lengths = torch.linalg.vector_norm(hidden[a] - hidden[b], dim=-1)
    return lengths.mean(), {"longest": lengths.max()}


def cross_entropy(inputs):
    return torch.nn.functional.nll_loss(inputs["log_probs"], inputs["classes"])


LOSS = RegularizedLoss(
    cross_entropy,
    Pipeline(
        [
            Penalty(expected_cost, weight=0.2),
            Penalty(total_persistence, inputs="hidden", weight=0.05),
            Penalty("l2", inputs="weights", weight=1e-3),
        ],
        name="wine",
    ),
)


@contextmanager
def durations(steps):
    """Print the value of each penalty at these steps, and how long it took."""
    logger = logging.Logger("async_penalty")
    printer = logging.StreamHandler(sys.stdout)
    printer.setFormatter(logging.Formatter("  %(message)s"))
    logger.addHandler(printer)
    log = LoggingHandler(logger)
    handler = add_handler(lambda event: log(event) if event.step in steps and event.kind == "stop" else None)
    try:
        yield
    finally:
        remove_handler(handler)


async def train(model, images, classes, *, steps, address):
    """Return the steps in which a penalty was dropped, and the report of the last of these steps."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    dropped, last = [], None
    for step in range(steps):
        hidden = model[:-1](images)
        inputs = {
            "hidden": hidden,
            "log_probs": model[-1](hidden).log_softmax(dim=-1),
            "weights": torch.cat([p.flatten() for p in model.parameters() if p.ndim == 2]),
            "classes": classes,
            "knowledge_base": address,
        }
        total, report = await LOSS.compute_async(inputs, step=step, timeout=TIMEOUT, on_error="drop")
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        if any(part.error is not None for part in report.regularizers.values()):
            dropped.append(step)
            last = report
    return dropped, last


def main(argv=None):
    """Return the test accuracy, the steps in which a penalty was dropped, and the report of the last of these steps."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=30, help="steps of gradient descent (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights (default: %(default)s)")
    args = parser.parse_args(argv)

    torch.manual_seed(args.seed)
    features, classes = load_wine(return_X_y=True)
    features = (features - features.mean(axis=0)) / features.std(axis=0)
    arrays = torch.asarray(features, dtype=torch.float32), torch.asarray(classes)
    rows = train_test_split(np.arange(len(classes)), test_size=0.25, stratify=classes, random_state=0)
    (features, classes), test = (tuple(x[each] for x in arrays) for each in rows)
    model = torch.nn.Sequential(torch.nn.Linear(13, HIDDEN), torch.nn.Tanh(), torch.nn.Linear(HIDDEN, 3))

    began = time.perf_counter()
    print("what the first step's penalties found, and how long they took side by side:")
    with knowledge_base() as address, durations(steps=[0]):
        dropped, report = asyncio.run(train(model, features, classes, steps=args.steps, address=address))
    print(f"{args.steps} steps: {time.perf_counter() - began:.1f} s")
    if report is not None:
        print(f"a penalty was dropped at steps {dropped}, at the last of them:\n\n{report}\n")
    accuracy = (model(test[0]).argmax(dim=-1) == test[1]).float().mean().item()
    print(f"test accuracy {accuracy:.1%}")
    return accuracy, dropped, report


if __name__ == "__main__":
    if main()[0] < TARGET_ACCURACY:
        sys.exit(f"the accuracy is below {TARGET_ACCURACY:.0%}")
