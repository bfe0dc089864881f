// The blocks of a launch: some are under way at a time, as on a GPU, in a drawn order.
#pragma once

#include "block.h"

namespace maskedconv {
namespace emulation {

inline std::vector<dim3> places_of(const dim3& grid) {
    std::vector<dim3> places;
    for (unsigned z = 0; z < grid.z; ++z)
        for (unsigned y = 0; y < grid.y; ++y)
            for (unsigned x = 0; x < grid.x; ++x)
                places.emplace_back(x, y, z);
    return places;
}

// Blocks that run at the same time, by rank, and their common barrier.
struct Cluster {
    std::vector<std::unique_ptr<Block>> blocks;
    size_t arrived = 0;
    unsigned barriers = 0; // that all have reached

    bool has_ended() const {
        return std::all_of(blocks.begin(), blocks.end(),
                           [](const auto& block) { return block->has_ended(); });
    }

    // Called by the running thread.
    void barrier() {
        const unsigned before = barriers;
        if (++arrived == blocks.size() * block->threads())
            arrived = 0, ++barriers;
        block->wait_until([this, before] { return barriers != before; });
    }
};

inline Cluster* cluster = nullptr; // of the block that runs

struct Launch {
    dim3 grid;
    int cluster, threads; // blocks of a cluster, threads of a block
    size_t shared_bytes;
};

class Grid {
  public:
    // `body`: the kernel, as each thread calls it.
    Grid(const Launch& launch, const std::function<void()>& body) : launch_(launch), body_(body) {
        const std::vector<dim3> places = places_of(launch.grid);
        if (launch.grid.x % launch.cluster)
            throw std::runtime_error("emulation: the grid is not of whole clusters");
        for (size_t i = 0; i < places.size(); i += launch.cluster)
            waiting_.emplace_back(places.begin() + i, places.begin() + i + launch.cluster);
        std::shuffle(waiting_.begin(), waiting_.end(), random_source);
    }

    void run() {
        constexpr size_t kAtOnce = 3;
        while (!waiting_.empty() || !running_.empty()) {
            while (!waiting_.empty() && running_.size() < kAtOnce)
                start();
            run_one();
        }
    }

  private:
    void start() {
        running_.push_back(std::make_unique<Cluster>());
        for (const dim3& place : waiting_.back())
            running_.back()->blocks.push_back(std::make_unique<Block>(
                place, launch_.threads, launch_.shared_bytes, body_, random_source));
        waiting_.pop_back();
    }

    void run_one() {
        const auto next = running_.begin() + random_source() % running_.size();
        cluster = next->get();
        Progress progress = Progress::none;
        for (const size_t rank : drawn_ranks())
            if (progress == Progress::none && !cluster->blocks[rank]->has_ended())
                progress = cluster->blocks[rank]->run_some();
        if (cluster->has_ended())
            running_.erase(next);
        else if (progress == Progress::none)
            throw std::runtime_error("emulation: the threads of a block or cluster wait for each "
                                     "other, or for what never comes");
    }

    std::vector<size_t> drawn_ranks() {
        std::vector<size_t> ranks(launch_.cluster);
        for (size_t i = 0; i < ranks.size(); ++i)
            ranks[i] = i;
        std::shuffle(ranks.begin(), ranks.end(), random_source);
        return ranks;
    }

    Launch launch_;
    const std::function<void()>& body_;
    std::vector<std::vector<dim3>> waiting_;
    std::vector<std::unique_ptr<Cluster>> running_;
};

} // namespace emulation
} // namespace maskedconv
