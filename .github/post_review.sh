# Posts a review as the one comment of its pull request, and its headline as a status.
#
# A pull request's own code wrote the review, so it is taken as text: it mentions nobody,
# its size is bounded, and the forge, not the review, names the pull request.
#
#   GH_TOKEN=… RUN_ID=… HEAD_SHA=… HEAD_OWNER=… HEAD_BRANCH=… bash post_review.sh FOLDER
set -euo pipefail
cd "$1"
for file in review.md review.png; do
  # A link in an artifact could lead to a file that holds a secret.
  [ ! -L "$file" ] || { echo "error: $file should be a file but is a link" >&2; exit 1; }
done
repository=repos/$GITHUB_REPOSITORY
here=$GITHUB_SERVER_URL/$GITHUB_REPOSITORY
branch=review-pictures

number=$(gh api -X GET "$repository/pulls" -f state=open -f head="$HEAD_OWNER:$HEAD_BRANCH" \
  --jq 'map(select(.head.sha == env.HEAD_SHA))[0].number // empty')
if [ -z "$number" ]; then
  echo "no open pull request has this commit as its head: nothing was posted"
  exit
fi

page=$(gh api "$repository/actions/runs/$RUN_ID/artifacts" \
  --jq '[.artifacts[] | select(.name == "review.html")][0].id // empty')
page=$here/actions/runs/$RUN_ID${page:+/artifacts/$page}

# Stores the picture on a branch and prints its Markdown.
store_picture() {
  if ! gh api "$repository/git/ref/heads/$branch" > /dev/null 2>&1; then
    tree=$(gh api "$repository/git/trees" -f "tree[][path]=README.md" -f "tree[][mode]=100644" \
      -f "tree[][type]=blob" -f "tree[][content]=Pictures of reviews, by commit" --jq .sha) &&
      commit=$(gh api "$repository/git/commits" -f message="pictures of reviews" -f tree="$tree" --jq .sha) &&
      gh api "$repository/git/refs" -f ref="refs/heads/$branch" -f sha="$commit" > /dev/null || return
  fi
  base64 -w 0 review.png > picture
  # It is there already where this workflow runs again.
  gh api -X PUT "$repository/contents/$HEAD_SHA.png" -f branch="$branch" \
    -f message="review of $HEAD_SHA" -F content=@picture > /dev/null ||
    gh api "$repository/contents/$HEAD_SHA.png?ref=$branch" > /dev/null || return
  echo "[![changed images, base and head]($here/blob/$branch/$HEAD_SHA.png?raw=true)]($page)"
}

picture=
if [ -f review.png ] && [ "$(head -c 8 review.png | base64)" = iVBORw0KGgo= ] &&
  [ "$(stat -c %s review.png)" -lt 2000000 ]; then
  # Where the forge refuses the branch, the comment does without.
  picture=$(store_picture) || true
fi

# No mention, by a zero-width space; whole characters.
sed $'s/@/@\xe2\x80\x8b/g' review.md > named
head -c 60000 named | iconv -c -f utf-8 -t utf-8 > text || true
{
  head -n 1 text
  printf '\n%s\n\n' "$picture"
  printf '**[All images, curves and tables](%s)**, made at %s by the code of this pull request\n' "$page" "${HEAD_SHA:0:10}"
  tail -n +2 text
} > body.md
gh pr comment "$number" --repo "$GITHUB_REPOSITORY" --edit-last --create-if-none --body-file body.md

# A status is plain text.
headline=$(head -n 1 text | sed 's/&lt;/</g; s/&gt;/>/g; s/&amp;/\&/g; s/\\//g' | cut -c 1-400)
state=success
case $headline in *❌*) state=failure ;; esac
gh api "$repository/statuses/$HEAD_SHA" -f state=$state -f context=review \
  -f description="$(printf %.130s "${headline#\#* }")" -f target_url="$page" > /dev/null
