"""What a codec leaves of pictures: the ceiling of every method that restores with latents."""

__all__ = ["draw"]

import numpy as np
from matplotlib.figure import Figure

from priorflow.stages.figures.base import Results
from priorflow.stages.figures.samples import pages_of
from priorflow.stages.figures.style import house_style
from priorflow.stages.statistics import bootstrap_interval


@house_style
def draw(results: Results) -> Figure:
    """Test pictures, and what comes back of them through the codec of every latent model.

    Titles give the PSNR, a mean over pictures with its 95 % interval, and the numbers in a latent.

    Args:
        results: Needs assessments of the models.
    """
    pages = []
    for model in results.models:
        found = results.assessment(model)
        psnr = bootstrap_interval(10 * np.log10(4 / found.reconstruction.values))  # the range is 2
        interval = f"{psnr.value:.1f} dB [{psnr.low:.1f}, {psnr.high:.1f}], n = {psnr.n:,}"
        title = f"encoded to {found.attrs['numbers']:,} numbers and decoded: {interval}"
        pages.append((title, found.reconstructions.values))
    size = found.pictures[0].size
    return pages_of([(f"test pictures of {size:,} numbers", found.pictures.values), *pages])
