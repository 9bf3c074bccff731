# Made by `python docs/build.py --stubs`.
from pathlib import Path
from typing import Any

from selftaught.methods.clustering.deepcluster import DeepCluster as DeepCluster
from selftaught.methods.clustering.deepcluster_v2 import DeepClusterV2 as DeepClusterV2
from selftaught.methods.clustering.seer import SEER as SEER
from selftaught.methods.clustering.sela import SeLa as SeLa
from selftaught.methods.clustering.swav import SwAV as SwAV
from selftaught.methods.contrastive.cpc import CPC as CPC
from selftaught.methods.contrastive.cpc_audio import CPCAudio as CPCAudio
from selftaught.methods.contrastive.dcl import DCL as DCL
from selftaught.methods.contrastive.hcl import HCL as HCL
from selftaught.methods.contrastive.infomin import InfoMin as InfoMin
from selftaught.methods.contrastive.infonce import InfoNCE as InfoNCE
from selftaught.methods.contrastive.instdisc import InstDisc as InstDisc
from selftaught.methods.contrastive.mean_shift import MeanShift as MeanShift
from selftaught.methods.contrastive.moco_v1 import MoCoV1 as MoCoV1
from selftaught.methods.contrastive.moco_v2 import MoCoV2 as MoCoV2
from selftaught.methods.contrastive.moco_v3 import MoCoV3 as MoCoV3
from selftaught.methods.contrastive.nnclr import NNCLR as NNCLR
from selftaught.methods.contrastive.npair import NPair as NPair
from selftaught.methods.contrastive.pcl import PCL as PCL
from selftaught.methods.contrastive.pirl import PIRL as PIRL
from selftaught.methods.contrastive.siamese import Siamese as Siamese
from selftaught.methods.contrastive.simclr import SimCLR as SimCLR
from selftaught.methods.contrastive.simclr_v2 import SimCLRv2 as SimCLRv2
from selftaught.methods.contrastive.spectral import Spectral as Spectral
from selftaught.methods.contrastive.supcon import SupCon as SupCon
from selftaught.methods.contrastive.triplet import Triplet as Triplet
from selftaught.methods.contrastive.ts2vec import TS2Vec as TS2Vec
from selftaught.methods.correlation.ace import ACE as ACE
from selftaught.methods.correlation.barlow_twins import BarlowTwins as BarlowTwins
from selftaught.methods.correlation.dcca import DCCA as DCCA
from selftaught.methods.correlation.dccae import DCCAE as DCCAE
from selftaught.methods.correlation.vicreg import VICReg as VICReg
from selftaught.methods.correlation.w_mse import WMSE as WMSE
from selftaught.methods.dense.also import ALSO as ALSO
from selftaught.methods.dense.densecl import DenseCL as DenseCL
from selftaught.methods.dense.pixcontrast import PixContrast as PixContrast
from selftaught.methods.dense.pixpro import PixPro as PixPro
from selftaught.methods.dense.scrl import SCRL as SCRL
from selftaught.methods.dense.stego import STEGO as STEGO
from selftaught.methods.distillation.byol import BYOL as BYOL
from selftaught.methods.distillation.dino import DINO as DINO
from selftaught.methods.distillation.dinov2 import DINOv2 as DINOv2
from selftaught.methods.distillation.distill_features import DistillFeatures as DistillFeatures
from selftaught.methods.distillation.ibot import IBOT as IBOT
from selftaught.methods.distillation.msn import MSN as MSN
from selftaught.methods.distillation.simsiam import SimSiam as SimSiam
from selftaught.methods.masked.beit import BEiT as BEiT
from selftaught.methods.masked.bert import BERT as BERT
from selftaught.methods.masked.data2vec import Data2Vec as Data2Vec
from selftaught.methods.masked.discrete_vae import DiscreteVAE as DiscreteVAE
from selftaught.methods.masked.mae import MAE as MAE
from selftaught.methods.masked.masked_series import MaskedSeries as MaskedSeries
from selftaught.methods.masked.simmim import SimMIM as SimMIM
from selftaught.methods.predictive.causal_lm import CausalLM as CausalLM
from selftaught.methods.predictive.ijepa import IJEPA as IJEPA
from selftaught.methods.predictive.selfie import Selfie as Selfie
from selftaught.methods.predictive.vjepa import VJEPA as VJEPA
from selftaught.methods.predictive.vjepa2 import VJEPA2 as VJEPA2
from selftaught.methods.pretext.colorization import Colorization as Colorization
from selftaught.methods.pretext.counting import Counting as Counting
from selftaught.methods.pretext.distortion import Distortion as Distortion
from selftaught.methods.pretext.exemplar_cnn import ExemplarCNN as ExemplarCNN
from selftaught.methods.pretext.inpainting import ContextEncoder as ContextEncoder
from selftaught.methods.pretext.jigsaw import Jigsaw as Jigsaw
from selftaught.methods.pretext.motion import Motion as Motion
from selftaught.methods.pretext.relative_patch import RelativePatch as RelativePatch
from selftaught.methods.pretext.rotation import Rotation as Rotation
from selftaught.methods.pretext.split_brain import SplitBrain as SplitBrain
from selftaught.methods.pretext.temporal_order import TemporalOrder as TemporalOrder
from selftaught.methods.supervised.distill import Distill as Distill
from selftaught.methods.supervised.finetune import Finetune as Finetune
from selftaught.methods.supervised.simclr_v2_finetune import SimCLRv2Finetune as SimCLRv2Finetune
from selftaught.signature import Signature

GROUP: str
USUAL: str

def files() -> dict[str, Path]: ...
def plugins() -> dict[str, str]: ...
def file_of(name: str) -> Path: ...
def signature(name: str) -> Signature: ...
def find(name: str) -> Any: ...
def reference(kind: type) -> str: ...
def short(name: str) -> str: ...
