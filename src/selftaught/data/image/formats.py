"""Which files hold images: by extension where it is known, by their first bytes where it is not."""

from importlib.util import find_spec
from pathlib import PurePath

RUN = "run.yaml"
"""The file with its settings, which makes a folder that of a run."""
SEARCHED = "search-index.json"
"""The file that makes a folder that of an index, whose arrays are no images."""
INDEXED = "data-index.json"
"""The file that makes a folder that of an index of data: where samples lie in shards."""
POOL = "pool.json"
"""The file that makes a folder that of a pool, whose images lie elsewhere."""
HEIF = find_spec("pillow_heif") is not None
"""Whether the extra `heif` is installed."""


def words(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


IMAGE = words(
    ".apng .avif .avifs .bmp .blp .cur .dds .dib .fli .flc .gif .icb .icns .ico .j2c .j2k .jfif"
    " .jp2 .jpc .jpe .jpeg .jpf .jpg .jpx .mpo .msp .npy .npz .pbm .pcx .pgm .png .pnm .ppm .psd"
    " .qoi .rgb .rgba .sgi .bw .ras .tga .tif .tiff .vda .vst .webp .xpm"
)
"""Extensions of files that are taken as images without a look inside."""

_HEIF = words(".heic .heics .heif .heifs .hif")
if HEIF:
    IMAGE |= _HEIF

FRAMES = words(".apng .avif .avifs .fli .flc .gif .mpo .tif .tiff .webp")
"""Extensions of images that may have several pages or frames."""

_CAMERA = words(
    ".3fr .arw .cr2 .cr3 .crw .dcr .dng .erf .iiq .kdc .mrw .nef .nrw .orf .pef .raf .rw2 .rwl"
    " .sr2 .srf .srw .x3f"
)
_SLIDES = words(".bif .mrxs .ndpi .scn .svs .vms .vmu")
_MICROSCOPES = words(".czi .ims .lif .nd2 .oib .oif .vsi")
_VOLUMES = words(".mgh .mgz .mha .mhd .nii .nii.gz .nrrd")
_PACKED = words(".7z .bz2 .gz .rar .tar.bz2 .tar.gz .tar.xz .tar.zst .tgz .xz .zip .zst")

OTHER = words(
    ".7z .arrow .avi .bak .bin .bz2 .c .cfg .ckpt .cls .cpp .csv .db .dbf .dcm .dic .dicom .doc"
    " .docx .eps .exe .exr .fits .flac .fts .geojson .gz .h .h5 .hdf5 .hdr .htm .html .ima .ini"
    " .ipynb .jl .js .json .jsonl .jxl .lock .log .m4a .m4v .mat .md .md5 .mkv .mov .mp3 .mp4 .mpg"
    " .ogg .onnx .parquet .pbtxt .pdf .pickle .pkl .pt .pth .py .pyc .pyd .rar .raw .rst"
    " .safetensors .sha256 .shp .so .sqlite .svg .tar .tgz .toml .tsv .txt .wav .webm .wmf .xls"
    " .xlsx .xml .xz .yaml .yml .zip .zst"
).union(_HEIF, _CAMERA, _SLIDES, _MICROSCOPES, _VOLUMES, _PACKED)
"""Extensions of files that are counted as ignored without a look inside. Those of cameras and slide
scanners may begin like a TIFF, whose first page is a thumbnail."""

BESIDE = words(
    ".bak .cfg .cls .csv .db .doc .docx .geojson .htm .html .ini .ipynb .json .jsonl .lock .log .md"
    " .md5 .pbtxt .pdf .py .rst .sha256 .toml .tsv .txt .xls .xlsx .xml .yaml .yml"
).union({"", "(hidden)", "(run)"})
"""Extensions of what usually lies beside images and is none."""

VIDEO = words(".3gp .avi .flv .gif .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .ts .webm .wmv")
"""Extensions of files that are taken as clips where clips are asked for."""

ARRAYS = frozenset({".npy", ".npz"})

# Magic bytes -> Pillow's name of the format; offset 0. The list is closed on purpose: Pillow would
# also run Ghostscript (EPS), hand over to other programs, or take any bytes for a picture (TGA).
_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"MM*\0", "TIFF"),
    (b"II\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"\xff\x4f\xff\x51", "JPEG2000"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG2000"),
    (b"8BPS", "PSD"),
    (b"DDS ", "DDS"),
    (b"BLP1", "BLP"),
    (b"BLP2", "BLP"),
    (b"icns", "ICNS"),
    (b"qoif", "QOI"),
    (b"\x59\xa6\x6a\x95", "SUN"),
    (b"/* XPM */", "XPM"),
    (b"\x93NUMPY", "NPY"),
    # known, so that they are named when refused
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\x76\x2f\x31\x01", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"%!PS", "PostScript"),
    (b"%PDF", "PDF"),
)
# Two or so bytes that ordinary files may begin with too: believed only of files that claim to be
# images by extension or by the column they lie in.
_WEAK: tuple[tuple[bytes, str], ...] = (
    (b"BM", "BMP"),
    (b"\0\0\1\0", "ICO"),
    (b"\0\0\2\0", "CUR"),
    (b"DanM", "MSP"),
    (b"LinS", "MSP"),
    (b"\x01\xda", "SGI"),
    (b"\x0a\x00", "PCX"),
    (b"\x0a\x02", "PCX"),
    (b"\x0a\x03", "PCX"),
    (b"\x0a\x05", "PCX"),
    (b"P1", "PPM"),
    (b"P2", "PPM"),
    (b"P3", "PPM"),
    (b"P4", "PPM"),
    (b"P5", "PPM"),
    (b"P6", "PPM"),
    (b"Pf", "PPM"),
    (b"PF", "PPM"),
    (b"PK\x03\x04", "NPZ"),
)
_TGA = frozenset({".tga", ".vda", ".icb", ".vst"})

UNSUPPORTED = frozenset({"JPEG XL", "OpenEXR", "Radiance HDR", "PostScript", "PDF"})
"""Formats that are recognized only to be refused by name."""
if not HEIF:
    UNSUPPORTED |= {"HEIC"}

_WAYS: tuple[tuple[frozenset[str], str], ...] = (
    (_HEIF | {"HEIC"}, "pip install 'selftaught[heif]' reads them"),
    (words(".jxl") | {"JPEG XL"}, "JPEG XL: convert them to PNG with djxl"),
    (
        words(".dcm .dic .dicom .ima"),
        "DICOM: save pydicom's pixel_array of each as .npy, and give its window as --value-range",
    ),
    (_VOLUMES, "volumes: save their slices as .npy, with nibabel or SimpleITK"),
    (_CAMERA, "raw photos: develop them to TIFF or JPEG"),
    (_SLIDES, "whole slides: cut them into tiles"),
    (_MICROSCOPES, "microscopy: export TIFF, a file a plane"),
    (words(".exr .hdr") | {"OpenEXR", "Radiance HDR"}, "save them as float TIFF"),
    (words(".fits .fts .h5 .hdf5 .mat"), "save the arrays as .npy"),
    (words(".pdf .eps .svg") | {"PDF", "PostScript"}, "no pixels: convert them to PNG"),
    (
        VIDEO - IMAGE,
        "video: `selftaught frames` makes images of it, with pip install 'selftaught[video]'",
    ),
    (_PACKED, "unpack them: random access needs plain files"),
    (words(".arrow .parquet .tar"), "read where they are named, or alone in a folder"),
)


def is_dicom(head: bytes) -> bool:
    """Whether the first 132 bytes of a file are those of DICOM, whose names often say nothing."""
    return head[128:132] == b"DICM"


def way(kind: str) -> str | None:
    """What makes files of an extension, or a format of `UNSUPPORTED`, readable; None: unknown."""
    return next((how for kinds, how in _WAYS if kind in kinds and kind not in IMAGE), None)


def extension(name: str) -> str:
    """Lower-case extension with its dot, or the empty string."""
    return PurePath(name).suffix.lower()


def endings(name: str) -> str:
    """`extension`, with the one before it where that says what is packed (`.nii.gz`)."""
    last = extension(name)
    both = extension(name[: -len(last)]) + last if last else ""
    return both if both in OTHER else last


def sniff(head: bytes, name: str = "", *, strict: bool = False) -> str | None:
    """Name of the format that the first 32 bytes of a file show, None where they show no image.

    `strict` believes only signatures that no other kind of file begins with.
    """
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[4:8] == b"ftyp":
        brand = head[8:12]
        if brand in (b"avif", b"avis"):
            return "AVIF"
        if brand in (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis"):
            return "HEIC"
        if brand in (b"mif1", b"msf1"):
            return "AVIF" if b"avif" in head else "HEIC"
        return None
    if strict:
        return None
    if extension(name) in _TGA:  # it begins with small numbers, as icons do
        return "TGA" if len(head) >= 18 else None
    for magic, kind in _WEAK:
        if head.startswith(magic):
            return kind
    if head[4:6] in (b"\x11\xaf", b"\x12\xaf"):
        return "FLI"
    return None
