"""SimCLR in a plain PyTorch loop: no engine, no run folder, any torch dataset.

python examples/plain_loop.py PHOTOS [EPOCHS]        # PHOTOS: a folder of folders of images
"""

import sys

import torch
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

from selftaught import augment, backbone, export
from selftaught.method import Batch
from selftaught.methods import SimCLR

encoder = backbone("resnet18", size=32)
method = SimCLR(encoder, strength=0.5, blur=0.0)
photos = ImageFolder(sys.argv[1], transform=method.views(32).transform())
loader = DataLoader(photos, batch_size=64, shuffle=True, drop_last=True)
optimizer = torch.optim.AdamW(method.parameters(), lr=1e-3, weight_decay=0.01)

for _ in range(int(sys.argv[2]) if len(sys.argv) > 2 else 100):
    for views, _ in loader:
        x = augment.normalize(views, encoder.mean, encoder.std)
        loss = method.loss(Batch(x, index=torch.empty(0)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"loss {loss.item():.3f}")

export.save(encoder, "encoder/")
