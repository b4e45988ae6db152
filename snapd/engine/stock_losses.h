// SPDX-License-Identifier: Apache-2.0
//
// What stock CRIU, without the patches of criu-plugin/, would not bring back as
// it was from a set of images.
#ifndef DAXSNAP_SNAPD_ENGINE_STOCK_LOSSES_H_
#define DAXSNAP_SNAPD_ENGINE_STOCK_LOSSES_H_

#include <vector>

#include "absl/status/statusor.h"
#include "daxsnap/v1/snapshot.pb.h"
#include "snapd/engine/criu_images.h"

namespace daxsnap {

// Each kind once, in the order of their numbers. `set` is what the images in
// the directory have. DATA_LOSS if one is missing or does not parse.
absl::StatusOr<std::vector<v1::StockCriuLoss>> ReadStockLosses(
    int images, const ImageSet& set);

}  // namespace daxsnap

#endif  // DAXSNAP_SNAPD_ENGINE_STOCK_LOSSES_H_
