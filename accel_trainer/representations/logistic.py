"""How well classes can be read out of features linearly: scikit-learn's logistic regression."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accel_trainer.core.errors import UserError
from accel_trainer.representations.rows import Rows

# In float64, all training images at once; scikit-learn holds a few copies.
MOST_BYTES = 4 * 2**30
FOLDS = 5
MOST_STEPS = 1000


@dataclass(frozen=True)
class Logistic:
    """Multinomial, by L-BFGS in at most 1,000 steps, of features that are standardized by the mean and the standard
    deviation of the training images. costs: scikit-learn's C, the inverse of the strength of the L2 penalty; of several
    the one that is best in a cross-validation of five stratified folds of the training images."""

    costs: Sequence[float] = (1.0,)

    @property
    def name(self) -> str:
        """Of the metric."""
        return f"logistic_c{self.costs[0]:g}" if len(self.costs) == 1 else "logistic_cv"

    def check(self, num_images: int, num_values: int) -> None:
        """Raises UserError where there is no scikit-learn, or no memory for so many training images."""
        if find_spec("sklearn") is None:
            raise UserError(
                "logistic regression needs scikit-learn",
                option="readout",
                hint="pip install 'accel-train[probe]', or take sgd or knn",
            )
        if (size := num_images * num_values * 8) > MOST_BYTES:
            raise UserError(
                f"{num_images:,} training images of {num_values:,} values are {size / 2**30:.1f} GB, which logistic "
                "regression has in memory at once",
                option="readout",
                hint="take sgd, or features of fewer values (`--pool mean`)",
            )

    def probabilities(
        self, train: Rows, labels: NDArray[np.int64], test: Rows, num_classes: int
    ) -> tuple[NDArray[np.float32], list[str]]:
        """Of each test image and class, (n, num_classes), learned from training images (m, values) with labels (m,);
        and what is to be said of it. Raises UserError for fewer images of a class than folds."""
        fitted, notes = self.fit(train[0 : train.shape[0]], labels)
        found = np.zeros((test.shape[0], num_classes), np.float32)
        step = max(1, MOST_BYTES // 64 // max(1, 8 * test.shape[1]))
        for start in range(0, test.shape[0], step):
            values = np.asarray(test[start : start + step], np.float64)
            found[start : start + step, fitted.classes_] = fitted.predict_proba(values)
        return found, notes

    def fit(self, train: NDArray[Any], labels: NDArray[np.int64]) -> tuple[Any, list[str]]:
        """The fitted pipeline, and notes."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import GridSearchCV, StratifiedKFold
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        model: Any = make_pipeline(StandardScaler(), LogisticRegression(C=self.costs[0], max_iter=MOST_STEPS))
        is_search = len(self.costs) > 1
        if is_search:
            if (fewest := int(np.bincount(labels)[np.unique(labels)].min())) < FOLDS:
                raise UserError(f"a class has {fewest} training images, and {FOLDS} folds need {FOLDS}", option="c")
            folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
            model = GridSearchCV(model, {"logisticregression__C": list(self.costs)}, cv=folds)
        with warnings.catch_warnings(record=True) as raised:
            warnings.simplefilter("always", ConvergenceWarning)
            model.fit(np.asarray(train, np.float64), labels)
        slow = any(issubclass(one.category, ConvergenceWarning) for one in raised)
        notes = [f"L-BFGS has not converged in {MOST_STEPS:,} steps"] if slow else []
        notes += [f"C = {model.best_params_['logisticregression__C']:g}"] if is_search else []
        return model, notes
